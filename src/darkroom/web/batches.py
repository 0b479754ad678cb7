"""Uploads on their way into a dataset: moved to where no page can reach them, named to the orders that collect them, and removed when those are done.

    .darkroom/taken/ID/NAME/...    the files
    .darkroom/taken/ID/orders.json whose they are

An order that failed or was cancelled keeps its files, so that it can be gone on with; they go when it is done, or forgotten in the list of jobs.
"""

from __future__ import annotations

import json
import secrets
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from darkroom.files import write_json
from darkroom.jobs.queue import Line, OrderError
from darkroom.web.grounds import OWN, Refused
from darkroom.web.uploads import Uploads

ORDERS = "orders.json"


@dataclass
class Batches:
    """The taken uploads of one workspace."""

    uploads: Uploads
    line: Line
    turn: threading.Lock = field(default_factory=threading.Lock)

    @property
    def place(self) -> Path:
        return self.uploads.grounds.workspace / OWN / "taken"

    @contextmanager
    def taken(self, batch: str, name: str) -> Iterator[tuple[Path, Callable[[str], None]]]:
        """The batch's files in a folder called `name`, and what is told each order that needs them. Where the block fails they lie in uploads again.

        Raises Refused where there is no such batch.
        """
        source = self.uploads.folder(batch)
        folder = self.place / secrets.token_hex(6)
        with self.turn:
            folder.mkdir(parents=True)
            try:
                source.rename(folder / name)
            except OSError:
                folder.rmdir()
                raise Refused("There is no such batch of uploads. Send the files again.") from None
            orders: list[str] = []
            try:
                yield folder / name, orders.append
            except BaseException:
                if not orders:
                    (folder / name).rename(source)
                    folder.rmdir()
                raise
            finally:
                if orders:
                    write_json(folder / ORDERS, orders)

    def sweep(self) -> int:
        """Remove what is in its dataset by now, or belongs to no order any more; how many batches that were."""
        if not self.turn.acquire(blocking=False):
            return 0
        try:
            over = [folder for folder in self._folders() if all(self._is_over(order) for order in _orders(folder))]
            for folder in over:
                shutil.rmtree(folder, ignore_errors=True)
            return len(over)
        finally:
            self.turn.release()

    def _folders(self) -> list[Path]:
        return [path for path in self.place.iterdir() if path.is_dir()] if self.place.is_dir() else []

    def _is_over(self, order: str) -> bool:
        try:
            job = self.line.look(order)
        except OrderError:
            return True
        return job["state"] == "done" or (bool(job["followed_by"]) and self._is_over(str(job["followed_by"])))


def _orders(folder: Path) -> list[str]:
    try:
        return [str(order) for order in json.loads((folder / ORDERS).read_text(encoding="utf-8"))]
    except (OSError, ValueError):
        return []
