"""Requests to PNGs that carry them, and a PNG to the same PNG again."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from pathlib import Path

from darkroom.errors import AdapterError, ModelError
from darkroom.files import writable_folder
from darkroom.jobs.base import open_base
from darkroom.jobs.watch import Silent, Watcher
from darkroom.sampling.request import Request, Worn, read_request, save_png

PRECISIONS = {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}


def parse_adapter(text: str) -> Worn:
    """ "FILE", "FILE:0.8" or a Windows path with a drive letter. Raises AdapterError."""
    file, colon, weight = text.rpartition(":")
    if colon and file and not Path(text).exists():
        try:
            return Worn(file=file, weight=float(weight))
        except ValueError:
            if not weight.startswith(("/", "\\")):
                raise AdapterError(f'--adapter {text}: "{weight}" is no weight. Write FILE:WEIGHT, for example {file}:0.8.') from None
    return Worn(file=text)


def requests_for(prompts: Sequence[str], template: Request, count: int) -> list[Request]:
    """`count` pictures of each prompt, with seeds counted up from the template's."""
    return [template.model_copy(update={"prompt": prompt, "seed": template.seed + number}) for prompt in prompts for number in range(count)]


def generate(requests: Sequence[Request], out: Path, device: str = "auto", precision: str = "auto", watcher: Watcher | None = None) -> list[Path]:
    """Draw each request to OUT/NNNN-seedS.png. All must ask for the same base and adapters. Raises a DarkroomError."""
    writable_folder(out)
    first = _next_number(out)
    paths = [out / f"{first + index:04d}-seed{request.seed}.png" for index, request in enumerate(requests)]
    draw_files(zip(requests, paths, strict=True), device, precision, watcher, len(requests))
    return paths


def draw_files(work: Iterable[tuple[Request, Path]], device: str = "auto", precision: str = "auto", watcher: Watcher | None = None, total: int = 0,
               what: str = "drawing") -> None:  # fmt: skip
    """Draw requests to files, changing base and adapters only where the next request wants others."""
    from darkroom.methods.stack import worn
    from darkroom.sampling.draw import complete, draw
    from darkroom.sdxl.formats import read_adapter

    wearing: tuple[str, tuple[Worn, ...]] | None = None
    with ExitStack() as stack:
        for done, (request, path) in enumerate(work, 1):
            model = open_base(request.base, device, precision)
            if wearing != (request.base, request.adapters):
                stack.close()
                files = [read_adapter(Path(w.file), model) for w in request.adapters]
                for asked, found in zip(request.adapters, files, strict=True):
                    if asked.sha256 and asked.sha256 != found.sha256:
                        raise AdapterError(f"{asked.file}: is not the file that was used then (its content changed). Put the old one back.")
                stack.enter_context(worn(model, [(file, w.weight) for file, w in zip(files, request.adapters, strict=True)]))
                wearing = (request.base, request.adapters)
                named = tuple(w.model_copy(update={"sha256": f.sha256}) for w, f in zip(request.adapters, files, strict=True))
            whole = complete(model, request).model_copy(update={"adapters": named})
            if request.base_sha256 and whole.base_sha256 != request.base_sha256:
                raise ModelError(f"{request.base}: is not the model that was used then (its weights changed). Give the old one with --base.")
            save_png(draw(model, whole), whole, path)
            (watcher or Silent()).move(what, done, total)


def again(file: Path, out: Path | None = None, device: str = "auto", watcher: Watcher | None = None) -> tuple[Path, bool]:
    """Draw the PNG's request once more. Returns the new file and whether its bytes are the same."""
    request = read_request(file)
    target = (out / file.name) if out else file.with_name(f"{file.stem}-again.png")
    if target.resolve() == file.resolve():
        target = file.with_name(f"{file.stem}-again.png")
    draw_files([(request, target)], device, PRECISIONS.get(request.precision, "auto"), watcher, 1)
    same = hashlib.sha256(file.read_bytes()).digest() == hashlib.sha256(target.read_bytes()).digest()
    return target, same


def _next_number(out: Path) -> int:
    numbers = [int(path.name[:4]) for path in out.glob("[0-9][0-9][0-9][0-9]-*.png")]
    return max(numbers, default=-1) + 1
