"""The process that draws: orders come in as lines, and models stay open from one to the next. `python -m darkroom.jobs.queue.easel STUDIO`

It ends when its standard input does. A mistake in an order fails that order; anything worse is told and ends the process, so that the next order begins clean.
"""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from darkroom.errors import DarkroomError
from darkroom.fence import stand
from darkroom.files import atomic, write_json
from darkroom.jobs.generate import generate
from darkroom.jobs.ledger import Ledger
from darkroom.jobs.queue.ends import FAULT
from darkroom.jobs.queue.folder import Folder, read_state
from darkroom.jobs.queue.order import Draw
from darkroom.sampling.denoise import Peek
from darkroom.sampling.peek import Previews, decode_tiny, expected, load_tiny
from darkroom.sdxl.latents import decode
from darkroom.sdxl.model import SDXL

SIDE = 384
"""Pixels of a preview's longer side, at most."""


class Cancelled(Exception):
    """Between two steps it was found that nobody wants the pictures any more."""


@dataclass
class Steps(Previews):
    """Looks on while an order is drawn: tells each step, shows a small picture, and sees whether it is still wanted. Changes nothing that is drawn."""

    folder: Folder = field(kw_only=True)
    order: Draw = field(kw_only=True)
    ledger: Ledger = field(kw_only=True)
    drawn: int = field(default=0, init=False)

    def watch(self, model: SDXL, path: Path) -> Peek:
        """What is called after each step of the pictures from `path` on."""
        decoder = load_tiny(self.tiny, model) if self.tiny else None
        walked, pictures = max(request.walked for request in self.order.requests), len(self.order.requests)

        def peek(stepped: Any, x: Any, index: int) -> None:
            state = read_state(self.folder)
            if state is not None and state.wish == "cancel":
                raise Cancelled
            together, step = min(len(x), pictures - self.drawn), min(index + 1, walked)
            self.ledger.move("drawing", self.drawn * walked + together * step, pictures * walked, f"{self.drawn} of {pictures} pictures, step {step}")
            if self.every and step % self.every == 0:
                latents = expected(stepped, x)[:1]
                self._show(decode(model, latents)[0] if decoder is None else decode_tiny(decoder, latents))

        return peek

    def _show(self, picture: Any) -> None:
        picture.thumbnail((SIDE, SIDE))
        with atomic(self.folder.preview) as part:
            picture.save(part, "PNG")

    def say(self, text: str) -> None:
        """A line for the person."""
        print(text, file=sys.stderr, flush=True)  # noqa: T201
        self.ledger.say(text)

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Pictures that are on the disk."""
        self.drawn = done


def draw(folder: Folder) -> dict[str, Any]:
    """Draw one order; what `darkroom generate --json` would tell. Raises a DarkroomError, Cancelled."""
    order = folder.order()
    assert isinstance(order, Draw)
    stand(order.grounds)
    with Ledger(folder.progress_file) as ledger:
        steps = Steps(order.previews, folder=folder, order=order, ledger=ledger)
        device = "cpu" if order.device == "cpu" else "auto"  # the only card that this process sees
        adapters = Path(order.adapters) if order.adapters else None
        paths = generate(order.requests, Path(order.out), device, order.precision, steps, order.memory, adapters, steps, order.fill)
        walked = sum(request.walked for request in order.requests)
        ledger.move("drawing", walked, walked, f"{len(paths)} pictures")
    return {"pictures": [str(path) for path in paths]}


def answer(folder: Folder) -> bool:
    """Draw one order and tell its end, whatever it is. False where the process should not draw another."""
    sound = True
    with _heard(folder):
        try:
            told = draw(folder)
        except DarkroomError as error:
            told = {"error": str(error), "kind": type(error).__name__}
        except Cancelled:
            told = {"error": "Stopped.", "kind": "Stopped"}
        except Exception as error:  # what is left of it goes with the process
            sound = False
            traceback.print_exc()
            told = {"error": _in_words(error), "kind": FAULT}
    write_json(folder.said_file, told)
    return sound


def _in_words(error: Exception) -> str:
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, of a card
        return "There was not enough memory. Ask for a smaller picture, fewer at once (batch), or --memory model, which keeps waiting weights off the device."
    return f"This is a fault of Darkroom, not yours: {type(error).__name__}: {error}. Please report it with the log."


@contextmanager
def _heard(folder: Folder) -> Iterator[None]:
    """Within the block all that this process says, libraries in C included, goes to the order's log."""
    before = os.dup(1), os.dup(2)
    log = os.open(folder.log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    for number in (1, 2):
        os.dup2(log, number)
    os.close(log)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        for number, kept in enumerate(before, start=1):
            os.dup2(kept, number)
            os.close(kept)


def serve(studio: Path) -> None:
    """Draw what comes in, until nothing does."""
    for line in sys.stdin:
        if not answer(Folder(studio / "orders" / line.strip())):
            break
    sys.stdout.flush()
    os._exit(0)  # taking torch apart costs a second, of which nobody has anything


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
