"""What people drop into a page: one file a request, bounded in size and count, written beside and moved into place, and looked at before it counts.

A picture is decoded to its last row as `darkroom collect` does; an adapter's header must agree with its length; a table is never more than text. Files lie
in uploads/BATCH/ of the workspace until a job takes them.
"""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.data.proof import Unusable, prove
from darkroom.web.answer import Answer
from darkroom.web.grounds import Grounds, Refused

Kind = Literal["picture", "text", "table", "adapter"]
MIB = 1 << 20
LARGEST: dict[str, int] = {"picture": 64 * MIB, "text": MIB, "table": 256 * MIB, "adapter": 8192 * MIB}
"""Bytes of one file, by what it is."""
ENDINGS: dict[str, str] = {
    **dict.fromkeys((".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".avif", ".heic"), "picture"),
    **dict.fromkeys((".txt", ".caption"), "text"),
    **dict.fromkeys((".csv", ".tsv", ".json", ".jsonl", ".parquet"), "table"),
    ".safetensors": "adapter",
}
MOST = 20_000
"""Files of one batch."""
ROOM = 2 << 30
"""Bytes that stay free on the disk."""
FOLDER = "uploads"
BATCH = re.compile(r"^[a-z0-9]{12}$")


@dataclass
class Uploads:
    """The uploads of one workspace."""

    grounds: Grounds
    most: int = MOST
    counts: dict[str, int] = field(default_factory=dict)
    looking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """A picture of the largest kind takes 0.7 GB while it is decoded."""

    def routes(self) -> list[Route]:
        return [
            Route("/api/uploads/new", self.new, methods=["POST"]),
            Route("/api/uploads/{batch}", self.put, methods=["PUT"]),
            Route("/api/uploads/{batch}", self.drop, methods=["DELETE"]),
        ]

    async def new(self, request: Request) -> Response:
        """{"batch": ID}, for files that belong together."""
        batch = secrets.token_hex(6)
        self.folder(batch).mkdir(parents=True)
        return Answer({"batch": batch, "folder": f"{FOLDER}/{batch}"})

    async def put(self, request: Request) -> Response:
        """The body is the file; ?name= is its name below the batch. Answers {"name", "kind", "width", "height"}."""
        folder = self._known(request)
        name = request.query_params.get("name", "")
        target = self.grounds.path(f"{FOLDER}/{folder.name}/{name}")
        if target == folder or target.name.startswith("."):
            raise Refused("A file needs a name.")
        kind = ENDINGS.get(target.suffix.lower())
        if kind is None:
            raise Refused(f"{target.name}: files with this ending are not taken. Taken are: {' '.join(ENDINGS)}.")
        self._count(folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        part = await _received(request, target, LARGEST[kind])
        try:
            async with self.looking:
                facts = await asyncio.to_thread(_looked_at, part, kind, target.name)
            part.chmod(0o644)
            part.replace(target)
        finally:
            part.unlink(missing_ok=True)
        return Answer({"name": self.grounds.name(target), "kind": kind, **facts})

    async def drop(self, request: Request) -> Response:
        """Throw a batch away."""
        folder = self._known(request)
        await asyncio.to_thread(shutil.rmtree, folder, True)
        self.counts.pop(folder.name, None)
        return Answer({})

    def folder(self, batch: str) -> Path:
        """Where a batch lies. Raises Refused."""
        if not BATCH.match(batch):
            raise Refused("There is no such batch of uploads.")
        return self.grounds.path(f"{FOLDER}/{batch}")

    def _known(self, request: Request) -> Path:
        folder = self.folder(request.path_params["batch"])
        if not folder.is_dir():
            raise Refused("There is no such batch of uploads.")
        return folder

    def _count(self, folder: Path) -> None:
        count = self.counts.get(folder.name)
        count = sum(1 for path in folder.rglob("*") if path.is_file()) if count is None else count
        if count >= self.most:
            raise Refused(f"A batch holds at most {self.most:,} files. Collect larger folders with `darkroom collect`, which needs no upload.")
        self.counts[folder.name] = count + 1


async def _received(request: Request, target: Path, limit: int) -> Path:
    """The body in a file beside the target. Raises Refused where it is too large, empty, broken off or without room."""
    said = request.headers.get("content-length")
    if said is not None and int(said) > limit:
        raise Refused(f"{target.name}: {int(said):,} bytes are too many: at most {limit:,}.")
    if shutil.disk_usage(target.parent).free - int(said or 0) < ROOM:
        raise Refused(f"{target.name}: the disk would have less than {ROOM >> 30} GiB left. Make room first.")
    handle, name = tempfile.mkstemp(dir=target.parent, prefix=".upload-", suffix=".part")
    size = 0
    try:
        with os.fdopen(handle, "wb") as file:
            async for piece in request.stream():
                size += len(piece)
                if size > limit:
                    raise Refused(f"{target.name}: more than {limit:,} bytes are too many.")
                file.write(piece)
    except (Refused, ClientDisconnect):
        Path(name).unlink(missing_ok=True)
        raise
    if not size or (said is not None and size != int(said)):
        Path(name).unlink(missing_ok=True)
        raise Refused(f"{target.name}: {'is empty' if not size else 'came only in part'}.")
    return Path(name)


def _looked_at(path: Path, kind: str, name: str) -> dict[str, Any]:
    """What a file turns out to be. Raises Refused where it is not what its name says."""
    match kind:
        case "picture":
            try:
                proof = prove(path)
            except Unusable as why:
                raise Refused(f"{name}: {why.reason}{f' ({why.detail})' if why.detail else ''}.") from None
            return {"width": proof.width, "height": proof.height}
        case "adapter":
            return {"tensors": _tensors(path, name)}
        case "text":
            _is_text(path, name)
            return {}
        case _:
            if not name.lower().endswith(".parquet"):
                _is_text(path, name)
            return {}


def _tensors(path: Path, name: str) -> int:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="np") as file:
            return len(file.keys())
    except (OSError, SafetensorError) as error:
        raise Refused(f"{name}: is no safetensors file, or a damaged one ({error}).") from None


def _is_text(path: Path, name: str) -> None:
    with path.open("rb") as file:
        head = file.read(65536)
    try:
        head.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if error.start < len(head) - 4:
            raise Refused(f"{name}: is no UTF-8 text.") from None
    if b"\0" in head:
        raise Refused(f"{name}: is no text.")
