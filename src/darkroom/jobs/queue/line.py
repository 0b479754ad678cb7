"""The queue as a page or a script uses it: put, look, cancel, pause, resume. Nothing here has to stay alive for the work to go on."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from typing import Any

from darkroom.jobs.queue.folder import OPEN, Folder, State, read_state, shown_state
from darkroom.jobs.queue.launch import lives, start_runner, trouble
from darkroom.jobs.queue.order import TRAININGS, Command, Order, OrderError
from darkroom.jobs.queue.shelf import Shelf
from darkroom.jobs.queue.telling import Told, again, brief, full, standing

WARM = 300.0
"""Seconds that models stay open after the last picture."""
RECENT = 30.0
"""Seconds for which it is told why a runner ended."""
Rows = list[Told]
Children = list[subprocess.Popen[bytes]]


class Line:
    """The orders of a studio folder, WORKSPACE/.darkroom. `warm`: seconds that models stay open after the last picture.

    `starts`: see to it that a runner lives wherever something waits. Safe to share between threads. Raises OutputError where the folder cannot be written.
    """

    def __init__(self, studio: Path, warm: float = WARM, starts: bool = True) -> None:
        self.shelf = Shelf(studio)
        self.warm, self.starts = warm, starts
        self.grounds: tuple[Path, ...] = ()
        """The folders that its orders may touch (`darkroom.fence`); none: orders go wherever their user may."""
        self._children: Children = []
        self._troubles: dict[str, tuple[float, str]] = {}

    def put(self, order: Order) -> str:
        """Take an order; its id. Raises OrderError where too many wait, or another order is at the same run."""
        folder = self.shelf.add(self._confined(order))
        self.ensure_runners()
        return folder.id

    def list(self, limit: int = 50, before: str | None = None, page: str | None = None, device: str | None = None) -> Rows:
        """The newest first, at most `limit`, of those put before the order `before`."""
        self.ensure_runners()
        places, found = self._places(), Rows()
        for folder in self.shelf.folders():
            if len(found) >= limit:
                break
            order = self.shelf.order(folder)
            fits = (page is None or (order and order.page == page)) and (device is None or self.shelf.device(folder) == device)
            if fits and (before is None or folder.id < before) and (state := shown_state(folder)) is not None:
                found.append(brief(folder, order, self._explained(folder, state), places.get(folder.id), self.shelf.workspace))
        return found

    def look(self, id: str) -> Told:
        """Everything of one. Raises OrderError where there is none."""
        self.ensure_runners()
        return self._told(self.shelf.find(id))

    def cancel(self, id: str) -> Told:
        """Take it from the line; of one that runs, ask it to stop, and make it after a while. Raises OrderError of one that has ended."""
        folder = self.shelf.find(id)
        with self.shelf.held():
            match self._open(folder).state:
                case "waiting":
                    self.shelf.change(folder, state="cancelled", ended=time.time(), message="Cancelled before it began.")
                case _:
                    self.shelf.change(folder, wish="cancel")
        return self.look(id)

    def pause(self, id: str) -> Told:
        """Let a training finish its step and save, and go on with it later. Raises OrderError of anything else."""
        folder = self.shelf.find(id)
        order = self.shelf.order(folder)
        if not isinstance(order, Command) or order.name not in TRAININGS:
            raise OrderError(f"Order {folder.number} is no training: only those can be paused. Cancel it instead.")
        with self.shelf.held():
            state = self._open(folder)
            match state.state:
                case "waiting":
                    words = f"Held back before it began. {standing(order, self.shelf.workspace)}"
                    self.shelf.change(folder, state="paused", ended=time.time(), message=words)
                case _:
                    self.shelf.change(folder, wish=state.wish or "pause")
        return self.look(id)

    def resume(self, id: str) -> str:
        """Put the order that goes on with this one; its id. Raises OrderError where there is nothing to go on with, or that was done before."""
        folder = self.shelf.find(id)
        with self.shelf.held():
            state = self.shelf.state(folder)
            order = again(self.shelf.order(folder), state, self.shelf.workspace)
            if order is None:
                raise OrderError(f"Order {folder.number} is {state.state}: there is nothing to go on with.")
            if state.followed_by and (self.shelf.orders / state.followed_by).is_dir():
                raise OrderError(f"Order {folder.number} is gone on with by order {int(state.followed_by.partition('-')[0])} already. Resume that one.")
            new = self.shelf.add(self._confined(order), follows=id)
            self.shelf.change(folder, followed_by=new.id)
        self.ensure_runners()
        return new.id

    def move(self, id: str, places: int) -> Told:
        """So many places earlier (below 0) or later in its device's line. Raises OrderError of one that does not wait."""
        folder = self.shelf.find(id)
        with self.shelf.held():
            row = self.shelf.waiting(self.shelf.device(folder))
            at = next((at for at, (each, _) in enumerate(row) if each.id == id), None)
            if at is None:
                raise OrderError(f"Order {folder.number} does not wait: it is {self.shelf.state(folder).state}.")
            ranks = [state.rank for _, state in row]
            row.insert(max(0, at + places), row.pop(at))
            for (each, state), rank in zip(row, ranks, strict=True):
                if state.rank != rank:
                    self.shelf.change(each, rank=rank)
        return self.look(id)

    def remove(self, id: str) -> None:
        """The record of an ended order; what it made stays. Raises OrderError of one that has not ended."""
        self.shelf.remove(self.shelf.find(id))

    def remove_ended(self) -> int:
        """All of those; how many they were."""
        ended = [folder for folder in self.shelf.folders() if (state := read_state(folder)) is None or state.state not in OPEN]
        for folder in ended:
            self.shelf.remove(folder)
        return len(ended)

    def log(self, id: str, size: int = 1 << 16) -> str:
        """The last `size` bytes of what it said. Raises OrderError."""
        return self.shelf.find(id).log(size)

    def picture(self, id: str) -> Path | None:
        """What is being drawn, or a training's newest preview; None where there is none. Raises OrderError."""
        folder = self.shelf.find(id)
        shown = (folder.progress() or {}).get("picture")
        places = [folder.preview, *([self.shelf.workspace / str(shown)] if shown else [])]
        return next((path for path in places if path.is_file()), None)

    def ensure_runners(self) -> None:
        """A living runner for every device where something waits or is unsettled."""
        self._children = [child for child in self._children if child.poll() is None]  # and those that have ended are buried
        if not self.starts:
            return
        for device in sorted({self.shelf.device(folder) for folder, _ in self.shelf.open()}):
            if not lives(self.shelf.studio, device):
                with self.shelf.held():
                    if not lives(self.shelf.studio, device):
                        if words := trouble(self.shelf.studio, device):
                            self._troubles[device] = (time.monotonic(), words)
                        self._children.append(start_runner(self.shelf.studio, device, self.warm))

    def _confined(self, order: Order) -> Order:
        return order.model_copy(update={"grounds": tuple(map(str, self.grounds))}) if self.grounds else order

    def _open(self, folder: Folder) -> State:
        state = self.shelf.state(folder)
        if state.state not in OPEN:
            raise OrderError(f"Order {folder.number} is {state.state} already.")
        return state

    def _told(self, folder: Folder) -> dict[str, Any]:
        order, state = self.shelf.order(folder), shown_state(folder) or self.shelf.state(folder)
        told = brief(folder, order, self._explained(folder, state), self._places().get(folder.id), self.shelf.workspace)
        return full(folder, order, told)

    def _explained(self, folder: Folder, state: State) -> State:
        """With why nothing comes of an order that waits, where what looks after its device cannot live."""
        when, words = self._troubles.get(self.shelf.device(folder), (0.0, ""))
        if state.state != "waiting" or not words or time.monotonic() - when > RECENT:
            return state
        device = self.shelf.device(folder)
        return state.model_copy(update={"message": f"What looks after {device} ended and is started again. Its last words: {words}"})

    def _places(self) -> dict[str, int]:
        """The place of each waiting order in its device's line."""
        counts: dict[str, int] = {}
        found = {}
        for folder, _ in self.shelf.waiting():
            device = self.shelf.device(folder)
            found[folder.id] = counts[device] = counts.get(device, 0) + 1
        return found
