"""All orders of a studio and who may change them: one lock, held for moments, so that no order is taken twice and none is half there."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from darkroom.errors import OutputError, RecipeError
from darkroom.files import write_json
from darkroom.jobs.queue.folder import NAME, OPEN, Folder, State, read_state
from darkroom.jobs.queue.order import LONGEST, Order, OrderError, placed

MOST = 1000
"""Orders that may wait."""
KEPT = 2000
"""Ended ones that are remembered."""
PATIENCE = 20.0
"""Seconds that the lock is waited for."""


class Shelf:
    """STUDIO/orders. Any number of processes and threads may have one of their own."""

    def __init__(self, studio: Path) -> None:
        from filelock import FileLock

        self.studio = studio.absolute()
        self.workspace = self.studio.parent
        self.orders = self.studio / "orders"
        try:
            self.orders.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"{self.studio}: cannot be written: {error.strerror}. Choose another workspace, or change its permissions.") from None
        self._lock = FileLock(self.studio / "line.lock", poll_interval=0.01)
        self._known: OrderedDict[str, Order] = OrderedDict()
        self._ended: set[str] = set()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Within the block nobody else changes how an order stands. Raises OrderError where it cannot be had, OutputError where it cannot be written."""
        from filelock import Timeout

        try:
            self._lock.acquire(timeout=PATIENCE)
        except Timeout:
            raise OrderError(f"{self.studio}: another process has held the queue for {PATIENCE:g} seconds. End it, or try again.") from None
        except OSError as error:
            raise OutputError(f"{self.studio}: cannot be written: {error.strerror}. Change its permissions, or choose another workspace.") from None
        try:
            yield
        finally:
            self._lock.release()

    def find(self, id: str) -> Folder:
        """Raises OrderError. What is no order's name is never made a path."""
        folder = Folder(self.orders / id) if NAME.fullmatch(id) else None
        if folder is None or not folder.path.is_dir():
            raise OrderError(f'"{id[:40]}": there is no such order. It may have been removed; the list shows those that are there.')
        return folder

    def folders(self) -> list[Folder]:
        """The newest first. One that is being written has another name and is never seen."""
        names = [name for name in os.listdir(self.orders) if NAME.fullmatch(name)]  # noqa: PTH208  thousands of names, of which few become paths
        names.sort(key=lambda name: (len(name), name), reverse=True)
        return [Folder(self.orders / name) for name in names]

    def order(self, folder: Folder) -> Order | None:
        """What was asked, read once; None where this version cannot read it."""
        if folder.id not in self._known:
            try:
                self._known[folder.id] = folder.order()
            except (RecipeError, OSError, ValueError):
                return None
            if len(self._known) > KEPT:
                self._known.popitem(last=False)
        return self._known[folder.id]

    def open(self, device: str | None = None) -> list[tuple[Folder, State]]:
        """Orders that wait or run, as they are taken: by rank, then by number."""
        found = []
        for folder in self.folders():
            state = None if folder.id in self._ended else read_state(folder)
            if state is not None and state.state not in OPEN:
                self._ended.add(folder.id)  # it never opens again: to go on is another order
            elif state is not None and device in (None, self.device(folder)):
                found.append((folder, state))
        return sorted(found, key=lambda row: (row[1].rank, row[0].id))

    def device(self, folder: Folder) -> str:
        """Whose line it stands in. An order that cannot be read stands in the CPU's, where it is told why."""
        order = self.order(folder)
        return order.device if order else "cpu"

    def waiting(self, device: str | None = None) -> list[tuple[Folder, State]]:
        """Those of them that wait."""
        return [row for row in self.open(device) if row[1].state == "waiting"]

    def add(self, order: Order, follows: str | None = None) -> Folder:
        """Lay an order down, whole. Raises OrderError where there are too many, it is too long, or another order has its run."""
        with self.held():
            if len(self.waiting()) >= MOST:
                raise OrderError(f"{MOST} orders wait already. Cancel some, or wait until some are done.")
            number = max((folder.number for folder in self.folders()), default=0) + 1
            order = placed(order, number)
            self._check_run(order)
            if len(order.model_dump_json()) > 4 * LONGEST:
                raise OrderError("This order is longer than 4 MiB. Ask for fewer pictures at once, or put long lists into a file.")
            folder = Folder(self.orders / f"{number:06d}-{secrets.token_hex(3)}")
            part = self.orders / f".{folder.id}.part"
            part.mkdir()
            write_json(part / "order.json", order.model_dump(mode="json"))
            Folder(part).write_state(State(put=time.time(), rank=number, follows=follows))
            part.rename(folder.path)
            self._forget()
        return folder

    def _check_run(self, order: Order) -> None:
        """Two trainings in one folder would spoil each other."""
        for folder, _ in self.open() if order.run else ():
            other = self.order(folder)
            if other is not None and other.run and self.workspace.joinpath(other.run).resolve() == self.workspace.joinpath(order.run).resolve():
                raise OrderError(f"{order.run}: order {folder.number} is at this run already. Cancel that one first, or name another folder with --out.")

    def change(self, folder: Folder, **facts: Any) -> State:
        """How it stands from now on. Raises OrderError where it is gone."""
        with self.held():
            state = self.state(folder).model_copy(update=facts)
            folder.write_state(state)
        return state

    def state(self, folder: Folder) -> State:
        """Raises OrderError where it is gone or cannot be read."""
        state = read_state(folder)
        if state is None:
            raise OrderError(f"{folder.path}: state.json is gone, or was written by another version of Darkroom. Remove the folder.")
        return state

    def claim(self, device: str) -> Folder | None:
        """The next order of a device, which runs from now on; None where none waits."""
        with self.held():
            for folder, _ in self.waiting(device):
                self.change(folder, state="running", began=time.time(), wish=None, pid=None, mark="")
                return folder
        return None

    def remove(self, folder: Folder) -> None:
        """The record of an ended order. Raises OrderError of another."""
        with self.held():
            if (state := read_state(folder)) is not None and state.state in OPEN:
                raise OrderError(f"Order {folder.number} is {state.state}. Cancel it first.")
            gone = folder.path.with_name(f".{folder.id}.gone")
            folder.path.rename(gone)  # at once: an order half taken away is none
        shutil.rmtree(gone, ignore_errors=True)
        self._known.pop(folder.id, None)

    def _forget(self) -> None:
        """What is past KEPT, the oldest ended ones first; and what a kill left half written."""
        folders = self.folders()
        ended = [folder for folder in reversed(folders) if folder.id in self._ended]
        for folder in ended[: max(0, len(ended) - KEPT)]:
            self.remove(folder)
        for left in self.orders.iterdir():
            if re.fullmatch(rf"\.{NAME.pattern}\.(part|gone)", left.name):  # nobody else is writing: the lock is ours
                shutil.rmtree(left, ignore_errors=True)
