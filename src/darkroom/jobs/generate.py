"""Requests to PNGs that carry them, and a PNG to the same PNG again."""

from __future__ import annotations

import hashlib
import itertools
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.device import Precision
from darkroom.errors import AdapterError, DarkroomError, RecipeError, did_you_mean
from darkroom.files import writable_folder, write_bytes
from darkroom.jobs.base import Easel
from darkroom.jobs.engine import Engine, Local
from darkroom.jobs.learned import adapter_of, word_of
from darkroom.jobs.painting import Group, Painter, Painting, Sizing
from darkroom.jobs.watch import Silent, Watcher
from darkroom.prompt import negative_preset, read
from darkroom.sampling.request import Branch, Request, Worn, read_request

if TYPE_CHECKING:
    from darkroom.sampling.memo import Memo
    from darkroom.sampling.memory import Memory
    from darkroom.sampling.peek import Previews

PRECISIONS: dict[str, Precision] = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}
BRANCHES: tuple[Branch, ...] = ("both", "conditional", "unconditional")


def parse_adapter(text: str) -> Worn:
    """ "FILE", "FILE:0.8", "FILE:0.8@unconditional", a finished run's folder, or "RUN@500" for its checkpoint of step 500. Raises AdapterError."""
    left, at, right = text.rpartition("@")
    if at and right in BRANCHES:
        return parse_adapter(left).model_copy(update={"branch": right})
    file, colon, weight = text.rpartition(":")
    if colon and file and not Path(text).exists():
        try:
            return Worn(file=adapter_of(file), weight=float(weight))
        except ValueError:
            if not weight.startswith(("/", "\\")):
                raise AdapterError(f'--adapter {text}: "{weight}" is no weight. Write FILE:WEIGHT, for example {file}:0.8.') from None
    return Worn(file=adapter_of(text))


def resolve(request: Request, folder: Path | None = None) -> Request:
    """The request with `<lora:...>` tags made into adapters, "@basic" into its words, and runs and "RUN@500" into the files that they learned.

    Tags of the prompt are worn by both branches (as everywhere), tags of the negative prompt by the unconditional branch alone. A name is a
    file's stem below `folder` (None: $DARKROOM_ADAPTERS, else ./adapters). Raises AdapterError for a name that is not there.
    """
    request = request.near()
    found = [worn.model_copy(update={"file": adapter_of(worn.file)}) for worn in request.adapters]
    changes: dict[str, Any] = {"embeddings": tuple(word.model_copy(update={"file": word_of(word.file)}) for word in request.embeddings)}
    sides: tuple[tuple[str, Branch], ...] = (("prompt", "both"), ("negative", "unconditional"))
    for side, branch in sides:
        text = getattr(request, side)
        if text is None:
            continue
        said = read(negative_preset(text) if side == "negative" else text, request.language)
        for tag in said.tags:
            text_weight = None if tag.text_weight == tag.unet_weight else tag.text_weight
            found.append(Worn(file=str(_by_name(tag.name, folder)), weight=tag.unet_weight, text_weight=text_weight, branch=branch))
        changes[side] = said.source
    return request.model_copy(update={**changes, "adapters": tuple(found)})


def _by_name(name: str, folder: Path | None) -> Path:
    place = folder or Path(os.environ.get("DARKROOM_ADAPTERS", "adapters"))
    known = {path.stem: path for path in sorted(place.rglob("*.safetensors"))} if place.is_dir() else {}
    if name not in known:
        listed = f" It holds: {', '.join(sorted(known)[:12])}." if known else " It holds no .safetensors file."
        listed = listed if place.is_dir() else " There is no such folder."
        raise AdapterError(f"<lora:{name}>: no file of this name lies in {place}.{did_you_mean(name, known)}{listed} Name another folder with --adapters.")
    return known[name]


def requests_for(prompts: Sequence[str], template: Request, count: int) -> list[Request]:
    """`count` pictures of each prompt, with seeds counted up from the template's."""
    return [template.model_copy(update={"prompt": prompt, "seed": template.seed + number}) for prompt in prompts for number in range(count)]


def generate(requests: Sequence[Request], out: Path, device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None,
             memory: Memory = "full", adapters: Path | None = None, previews: Previews | None = None, fill: bool = False,
             engine: Engine | None = None) -> list[Path]:  # fmt: skip
    """Draw each request to OUT/NNNN-seedS.png. `fill`: choose how many are drawn at once. Raises a DarkroomError."""
    requests = [resolve(request, adapters) for request in requests]
    if fill:
        requests = filled(requests, device, precision, memory, engine)
    writable_folder(out)
    first = _next_number(out)
    paths = [out / f"{first + index:04d}-seed{request.seed}.png" for index, request in enumerate(requests)]
    draw_files(zip(requests, paths, strict=True), device, precision, watcher, len(requests), memory=memory, previews=previews, engine=engine)
    return paths


def filled(requests: Sequence[Request], device: str, precision: Precision, memory: Memory, engine: Engine | None = None) -> list[Request]:
    """The requests with a batch: as many pictures as there are of a kind, up to 16384 latents at once (one picture of 1024 pixels) and up to 8 (caches)."""
    bases = list(dict.fromkeys(request.base for request in requests))
    sizes = dict(zip(bases, (engine or Local()).each(Sizing(device, precision, memory), bases), strict=True))
    found: list[Request] = []
    for _, group in itertools.groupby(requests, _all_but_seed):
        alike = list(group)
        resolution, factor = sizes[alike[0].base]
        width, height = alike[0].width or resolution, alike[0].height or resolution
        room = max(1, 16384 * factor**2 // (width * height)) if not alike[0].image else 1
        rounds = -(-len(alike) // min(8, room))
        found += [request.model_copy(update={"batch": -(-len(alike) // rounds)}) for request in alike]
    return found


def draw_files(work: Iterable[tuple[Request, Path]], device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None, total: int = 0,
               what: str = "drawing", memory: Memory = "full", memo: Memo | None = None, previews: Previews | None = None,
               resume: bool = False, engine: Engine | None = None) -> None:  # fmt: skip
    """Draw requests to files, opening models and adapters anew only where the next request wants others.

    `resume`: a file that is there, whole, and drawn from exactly this request, base and adapters is left as it is. The engine's workers hold the models; this
    process writes the files, in the order of `work`. `memo` and `previews` are of one process. Raises a DarkroomError.
    """
    engine, watcher, done = engine or Local(), watcher or Silent(), 0
    if (memo or previews) and (engine.name != "local" or engine.workers > 1):
        said = "--previews are written" if previews else "steps that pictures share are kept"
        raise RecipeError(f"{said} by one process that draws everything: leave --engine and --workers out, or draw without.")
    waiting = deque[list[Path]]()

    def groups() -> Iterator[Group]:
        for pairs in _batches(work):
            paths = [path for _, path in pairs]
            waiting.append(paths)
            yield Group(tuple(request for request, _ in pairs), tuple(_drawn_from(path) if resume else None for path in paths), paths[0])

    with Easel(device, precision, memory) as easel:
        painting = Painting(device, precision, memory, Painter(easel, memo, previews))
        for drawn in engine.each(painting, groups()):
            paths = waiting.popleft()
            for path, png in zip(paths, drawn, strict=True):
                if png is not None:
                    write_bytes(path, png)
            done += len(paths)
            watcher.move(what, done, total)


def _drawn_from(path: Path) -> Request | None:
    try:
        return read_request(path).near() if path.is_file() else None
    except DarkroomError:  # half written or re-saved by another program: drawn anew
        return None


def _all_but_seed(request: Request) -> str:
    return request.model_dump_json(exclude={"seed"})


def _batches(work: Iterable[tuple[Request, Path]]) -> Iterator[list[tuple[Request, Path]]]:
    """Neighbours that differ in their seeds alone, `batch` at a time."""
    for _, group in itertools.groupby(work, lambda pair: _all_but_seed(pair[0])):
        pairs = list(group)
        size = pairs[0][0].batch
        yield from (pairs[at : at + size] for at in range(0, len(pairs), size))


def again(file: Path, out: Path | None = None, device: str = "auto", watcher: Watcher | None = None, memory: Memory = "full") -> tuple[Path, bool]:
    """Draw the PNG's request once more. Returns the new file and whether its bytes are the same."""
    request = read_request(file).near()
    target = (out / file.name) if out else file.with_name(f"{file.stem}-again.png")
    if target.resolve() == file.resolve():
        target = file.with_name(f"{file.stem}-again.png")
    draw_files([(request, target)], device, PRECISIONS.get(request.precision, "auto"), watcher, 1, memory=memory)
    same = hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(target.read_bytes()).digest()
    return target, same


def _next_number(out: Path) -> int:
    numbers = [int(path.name[:4]) for path in out.glob("[0-9][0-9][0-9][0-9]-*.png")]
    return max(numbers, default=-1) + 1
