"""Places: datasets, runs and reports at an address (`s3://bucket/cats`, `gs://`, `hf://`, `sftp://`, whatever fsspec opens).

A place is worked on in a copy below the cache, which is a path like any other: `near` brings it up to date from the store, `push` the store up to date from
it, and only what changed travels. A `file://` needs no copy: it is this machine's own path, where Darkroom writes whole files anyway.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.errors import PlaceError
from darkroom.places.address import is_address, is_known, join, own_path
from darkroom.places.copy import Copy
from darkroom.places.headers import fetch_header
from darkroom.places.hub import is_hub
from darkroom.places.store import Seen, check_writable, fetch, listing, open_binary, read_bytes, read_range, weakness
from darkroom.places.sync import Listener, Nobody, pull, push, under_way

if TYPE_CHECKING:
    from filelock import FileLock

__all__ = [
    "Listener", "Nobody", "Seen", "at_hand", "glance", "is_address", "is_known", "join", "listing", "near", "open_binary", "push_near", "read_bytes",
    "read_range", "writing",
]  # fmt: skip
FRESH = 20.0
"""Seconds in which a copy is not compared with its store again by the same process."""
AT_STEP = re.compile(r"(.+[^/])@(\d+)")
"""A run, and one of its checkpoints."""
EVERY = 300.0
"""Seconds after which what a command has made so far is pushed, and again after as many."""
_compared: dict[str, float] = {}


def near(address: str, listener: Listener | None = None) -> Path:
    """The working copy for reading, brought up to date: a folder or a file, as the store has it; of RUN@500 the run, "@500" behind its name.

    Raises PlaceError; also where the store has nothing there.
    """
    if (own := own_path(address)) is not None:
        return own
    listener = listener or Nobody()
    if (step := AT_STEP.fullmatch(address)) is not None and not listing(address):
        run = near(step[1], listener)
        return run.with_name(f"{run.name}@{step[2]}")
    if (found := _around(address)) is not None:
        copy, path = found
        if time.monotonic() - _compared.get(copy.address, -FRESH) > FRESH and not _is_held(copy):
            _compare(copy, listener, copy.writing, must=True)
        if path.exists():
            return path
    copy = Copy.of(address)
    _compare(copy, listener, copy.writing, must=True)
    return copy.path


def at_hand(name: str) -> str:
    """The path of the working copy where the name is an address; any other name, as a hub id, as it is. Raises PlaceError."""
    return str(near(name)) if is_known(name) else name


def glance(address: str, listener: Listener | None = None) -> Path:
    """A copy with texts whole and big files without their inside, for what asks only headers and sizes: never to be drawn with. Raises PlaceError."""
    if (own := own_path(address)) is not None:
        return own
    copy = Copy.of(address, "glance")
    _compare(copy, listener or Nobody(), writing=False, must=True)
    return copy.path


@contextmanager
def writing(address: str, listener: Listener | None = None) -> Iterator[Path]:
    """The working copy for reading and writing; at the end of the block, however it ends, the store is brought up to date from it.

    That one may write there is proved at the beginning. Raises PlaceError; also where another command of this machine is writing there. Work that could not
    be pushed stays in the copy, and goes with the next push.
    """
    if (own := own_path(address)) is not None:
        yield own
        return
    copy, listener = Copy.of(address), listener or Nobody()
    copy.notes.mkdir(parents=True, exist_ok=True)
    with _alone(copy):
        _compare(copy, listener, copy.writing, must=False)
        if not is_hub(copy.address):
            check_writable(copy.address, beside=copy.path.suffix != "" and not copy.path.is_dir())
        if told := weakness(copy.address):
            listener.say(told)
        copy.begin(writing=True)
        try:
            with _now_and_then(copy, listener):
                yield copy.path
        except BaseException as error:
            _push_anyway(copy, listener, error)
            raise
        _push_last(copy, listener)


@contextmanager
def _now_and_then(copy: Copy, listener: Listener) -> Iterator[None]:
    """Within the block the store is brought up to date every few minutes: a machine that is taken away loses no more than that."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(EVERY):
            push_near(copy.path, _Failures(listener))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Failures(Nobody):
    """Passes on what is said, and not how far it is."""

    def __init__(self, listener: Listener) -> None:
        self.say = listener.say  # type: ignore[method-assign]


def push_near(path: Path, listener: Listener | None = None) -> int:
    """Where a folder lies in a copy that is being written, its store is brought up to date with it: how many files went. A plain path is nothing's copy: 0.

    For jobs that go on: a store that fails now is told of, and tried again at the next time.
    """
    listener = listener or Nobody()
    copy = Copy.around(path)
    if copy is None or not copy.writing:
        return 0
    below = path.resolve().relative_to(copy.path).as_posix() if path.resolve().is_relative_to(copy.path) else "."
    try:
        with _lock(copy):
            return push(copy, listener, "" if below == "." else f"{below}/")
    except PlaceError as error:
        listener.say(f"not pushed: {error} It is tried again.")
        return 0


def _around(address: str) -> tuple[Copy, Path] | None:
    """The copy that it is, or lies in, and where: one that a command is writing (what is not pushed yet is read where it was made) or this process compared."""
    above, names = address.rstrip("/"), list[str]()
    while above.count("/") > 1:
        copy = Copy.of(above)
        if (path := copy.path.joinpath(*names)).exists() and (copy.address in _compared or (copy.writing and _is_held(copy))):
            return copy, path
        above, _, name = above.rpartition("/")
        names.insert(0, name)
    return None


def _is_held(copy: Copy) -> bool:
    from filelock import FileLock, Timeout

    try:
        with FileLock(copy.notes / "writer.lock", timeout=0):
            return False
    except Timeout:
        return True


def _compare(copy: Copy, listener: Listener, writing: bool, must: bool) -> None:
    there = listing(copy.address)
    if must and not there and not (writing and copy.path.exists()):
        raise PlaceError(f"{copy.address}: there is nothing there: no file of this name, and none below it. Check its spelling, and your right to list it.")
    copy.notes.mkdir(parents=True, exist_ok=True)
    with _lock(copy):
        copy.begin(writing)
        if told := under_way(copy):
            listener.say(told)
        pull(copy, there, listener, fetch_header if copy.kind == "glance" else fetch)
    _compared[copy.address] = time.monotonic()


def _push_last(copy: Copy, listener: Listener) -> None:
    try:
        with _lock(copy):
            push(copy, listener)
    except PlaceError as error:
        raise PlaceError(f"{error} What was made is whole in {copy.home}, and goes with the next command that writes to {copy.address.rstrip('/')}.") from None
    copy.begin(writing=False)
    _compared.pop(copy.address, None)


def _push_anyway(copy: Copy, listener: Listener, error: BaseException) -> None:
    """What a command made that failed: its own error is the one that counts."""
    try:
        _push_last(copy, listener)
    except PlaceError as other:
        listener.say(str(other))


def _lock(copy: Copy) -> FileLock:
    """For as long as the two are compared."""
    from filelock import FileLock

    return FileLock(copy.notes / "compare.lock")


@contextmanager
def _alone(copy: Copy) -> Iterator[None]:
    """One command writes to a place at a time, of this machine."""
    from filelock import FileLock, Timeout

    try:
        with FileLock(copy.notes / "writer.lock", timeout=0):
            yield
    except Timeout:
        raise PlaceError(f"{copy.address}: another darkroom command of this machine is writing there. Wait for its end, or choose another place.") from None
