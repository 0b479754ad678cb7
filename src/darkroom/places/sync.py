"""A working copy and its store brought to agree: what changed there is fetched, what changed here is pushed, what changed on both sides is an error.

Contents go first and markers last (`rank`), so that whoever reads the store never sees a marker (facts.json, manifest.parquet, a report ...) of what is not
there yet; what is taken away goes the other way round. Between the comparison and a put there is a moment in which another writer may put the same file:
stores have no lock that all of them share.
"""

from __future__ import annotations

import hashlib
import json
import socket
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from pathlib import Path
from typing import Literal, Protocol

from darkroom.errors import PlaceError
from darkroom.places.address import join
from darkroom.places.copy import Copy, Known, Stat, stat_of
from darkroom.places.hub import commit, is_hub
from darkroom.places.store import HIDDEN, Seen, fetch, listing, open_binary, parallel, put, put_bytes, read_bytes, remove, seen

PUSHING = f"{HIDDEN}pushing"
"""The object that is there while a push goes on: who, since when, how many files."""
MARKERS = (
    "recipe.toml", "manifest.parquet", "shards.json", "trial.toml", "trial.json", "tune.json", "pick.json", "scores.json", "grid.json", "model_index.json",
    "README.md",
)  # fmt: skip
FEW = 16
"""So many files are asked for one by one before a push; of more the whole folder is listed."""
Action = Literal["", "fetch", "drop", "compare", "forget"]


class Listener(Protocol):
    """Who is told how it goes: the watcher of a job will do."""

    def say(self, text: str) -> None: ...

    def move(self, what: str, done: int, total: int, note: str = "") -> None: ...


class Nobody:
    """Nobody listens."""

    def say(self, text: str) -> None:
        """Nothing."""

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Nothing."""


def pull(copy: Copy, there: Mapping[str, Seen], listener: Listener, get: Callable[[str, Path, Seen], None] = fetch) -> None:
    """What changed in the store since the last time, into the copy by `get`. Raises PlaceError where both sides changed the same file."""
    known, here, writing = copy.known(), copy.here(), copy.writing
    there = {**there, **{name: told for name in known if name.startswith("../") and (told := seen(copy.there(name))) is not None}}
    names = sorted({*known, *there, *(name for name in here if not name.startswith("../"))})
    planned = {name: _fetching(known.get(name), here.get(name), there.get(name), writing) for name in names}
    _refuse(copy, [name for name in names if planned[name] == "compare" and not _same(copy, name, there)])
    for name in names:
        match planned[name]:
            case "compare":
                copy.learn(name, Known(stat_of(copy.local(name)), there[name]))
            case "drop":
                copy.local(name).unlink(missing_ok=True)
                copy.learn(name, None)
            case "forget":
                copy.learn(name, None)
    wanted = [name for name in names if planned[name] == "fetch"]

    def one(name: str) -> None:
        get(copy.there(name), copy.local(name), there[name])
        copy.learn(name, Known(stat_of(copy.local(name)), there[name]))

    _each(copy, wanted, "fetching", one, listener)
    copy.settle(copy.known())


def _fetching(known: Known | None, here: Stat | None, there: Seen | None, writing: bool) -> Action:
    """What a file wants that is known so, lies here so and there so. What changed here is work while `writing`, else an accident."""
    ours = here != (known.here if known else None)
    theirs = there != (known.there if known else None)
    if ours and theirs and writing:
        return "compare" if here is not None and there is not None else "fetch" if there else "" if known is None else "compare" if here else "forget"
    if (ours and writing) or not (ours or theirs):
        return ""
    return "fetch" if there else "drop"


def _same(copy: Copy, name: str, there: Mapping[str, Seen]) -> bool:
    """Whether the file is the same here and there, by its MD5 where the store's tag is one, else byte by byte."""
    path, other = copy.local(name), there.get(name)
    if other is None or not path.is_file() or path.stat().st_size != other.size:
        return False
    if _is_md5(other.tag):
        return _md5(path) == other.tag
    with path.open("rb") as mine, open_binary(copy.there(name)) as theirs:
        while (piece := mine.read(1 << 20)) == theirs.read(1 << 20):
            if not piece:
                return True
    return False


def _is_md5(tag: str) -> bool:
    """Whether a tag is the MD5 of the bytes, as S3's is of what was put in one piece."""
    return len(tag) == 32 and all(letter in "0123456789abcdef" for letter in tag)


def _md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def _refuse(copy: Copy, names: Sequence[str]) -> None:
    if not names:
        return
    listed = ", ".join(name or copy.path.name for name in names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")
    raise PlaceError(
        f"{copy.address}: changed in the store since it was fetched, and here as well: {listed}. Nothing was overwritten. What was made here lies in "
        f"{copy.path.parent}: copy it from there to keep it; delete that folder to go on from the store."
    )


def push(copy: Copy, listener: Listener, below: str = "") -> int:
    """What changed in the copy (in its folder `below` alone, if given), into the store: how many files.

    Raises PlaceError; where both sides changed the same file nothing is overwritten.
    """
    known, here = copy.known(), copy.here()
    changed = [name for name, stat in here.items() if (name not in known or known[name].here != stat) and name.startswith(below)]
    gone = [name for name in known if name not in here and name.startswith(below)]
    if not changed and not gone:
        _ended(copy)
        return 0
    there = _now_there(copy, [*changed, *gone], below)
    other = [name for name in changed if there.get(name) != (known[name].there if name in known else None)]
    _refuse(copy, [name for name in other if not _same(copy, name, there)])
    other += [name for name in changed if name not in other and name in known and _written_again(copy, name, known[name].there)]
    for name in other:
        copy.learn(name, Known(here[name], there[name]))
    wanted, mine = [name for name in changed if name not in other], [name for name in gone if there.get(name) == known[name].there]
    if is_hub(copy.address):
        _committed(copy, wanted, mine, listener)
    else:
        _pushed(copy, {name: here[name] for name in wanted}, mine, listener)
    for name in gone:
        copy.learn(name, None)
    copy.settle(copy.known())
    return len(wanted) + len(mine)


def _written_again(copy: Copy, name: str, there: Seen) -> bool:
    """Whether a file has a new time and the bytes that it had."""
    path = copy.local(name)
    return _is_md5(there.tag) and path.is_file() and path.stat().st_size == there.size and _md5(path) == there.tag


def _now_there(copy: Copy, names: Sequence[str], below: str) -> dict[str, Seen]:
    """What the store has of these: asked one by one where they are few, and of what lies beside a file."""
    single = [name for name in names if len(names) <= FEW or name.startswith("../")]
    found = {name: told for name in single if (told := seen(copy.there(name))) is not None}
    if len(single) < len(names):
        inner = below.rstrip("/")
        found |= {join(inner, name) if inner else name: told for name, told in listing(join(copy.address, inner)).items()}
    return found


def _pushed(copy: Copy, wanted: Mapping[str, Stat], gone: Sequence[str], listener: Listener) -> None:
    """In turns. A marker that was written anew since `wanted` was looked at may vouch for what is not among it: it waits for the next push."""
    names = frozenset(copy.here()) | set(gone)
    ordered = sorted(wanted, key=lambda name: (rank(name, names), name))
    markers = [name for name in gone if rank(name, names)]
    if len(ordered) + len(gone) > 1 and not copy.path.is_file():
        (copy.notes / "pushing").touch()
        put_bytes(_notice(len(ordered) + len(gone)), join(copy.address, PUSHING))
    _each(copy, markers, "taking away", lambda name: remove(copy.there(name)), listener)
    done = 0
    for turn, group in groupby(ordered, key=lambda name: rank(name, names)):
        together = [name for name in group if copy.stat(name) == wanted[name] or (not turn and copy.stat(name) is not None)]
        _each(copy, together, "pushing", lambda name: _push(copy, name), listener, done, len(ordered))
        done += len(together)
    _each(copy, [name for name in gone if name not in markers], "taking away", lambda name: remove(copy.there(name)), listener)
    _ended(copy)


def _push(copy: Copy, name: str) -> None:
    before = copy.stat(name)
    if before is None:  # taken away since it was listed, as an old checkpoint
        return
    copy.learn(name, Known(before, put(copy.local(name), copy.there(name))))


def _committed(copy: Copy, wanted: Sequence[str], gone: Sequence[str], listener: Listener) -> None:
    """To the hub, all of it in one commit: there or not there."""
    listener.say(f"{copy.address}: {len(wanted)} files, in one commit")
    before = {name: stat_of(copy.local(name)) for name in wanted}
    commit({copy.there(name): copy.local(name) for name in wanted}, [copy.there(name) for name in gone])
    for name in wanted:
        if (there := seen(copy.there(name))) is not None:
            copy.learn(name, Known(before[name], there))


def _ended(copy: Copy) -> None:
    """Take away the notice of a push, this one's or one that was killed."""
    mark = copy.notes / "pushing"
    if mark.exists():
        remove(join(copy.address, PUSHING))
        mark.unlink(missing_ok=True)


def _notice(files: int) -> bytes:
    return json.dumps({"host": socket.gethostname(), "since": time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime()), "files": files}).encode()


def under_way(copy: Copy) -> str:
    """That another push is going on there, or broke off, in a line; "" where none is."""
    if (copy.notes / "pushing").exists() or seen(join(copy.address, PUSHING)) is None:
        return ""
    try:
        told = json.loads(read_bytes(join(copy.address, PUSHING)))
        who = f"{told['host']} began to push {told['files']} files at {told['since']}"
    except (PlaceError, ValueError, KeyError, TypeError):
        who = "another machine began to push"
    return f"{copy.address}: {who} and has not ended: it may be half there. If that broke off, give its command again there: it goes on."


def rank(name: str, names: Collection[str]) -> int:
    """In which turn a file is put: 0 contents, then the markers by which readers tell that contents are whole, the one that vouches for most at last."""
    last = name.rpartition("/")[2]
    match last:
        case "state.json":  # of a checkpoint
            return 1
        case "facts.json":  # of a run: before what it learned, which says that it is finished
            return 2
        case _ if last in MARKERS:
            return 4
        case _ if last.endswith(".html"):
            return 5
    return 3 if _is_product(name.split("/"), names) else 0


def _is_product(parts: Sequence[str], names: Collection[str]) -> bool:
    """Whether it is what a run learned: a file in the run's folder, or in a folder of its own there."""
    for depth in range(len(parts)):
        if all("/".join([*parts[:depth], mark]) in names for mark in ("recipe.toml", "facts.json")):
            first, *inner = parts[depth:]
            return first not in ("steps", "previews", "shown", "pick") if inner else first.endswith(".safetensors")
    return False


def _each(copy: Copy, names: Sequence[str], what: str, work: Callable[[str], None], listener: Listener, done: int = 0, total: int = 0) -> None:
    """The work on each, several at a time; the first failure ends it when those under way are through. Raises PlaceError."""
    total, told = total or len(names), 0.0
    with ThreadPoolExecutor(parallel(copy.address)) as pool:
        waiting = [pool.submit(work, name) for name in names]
        try:
            for index, one in enumerate(waiting, done + 1):
                one.result()
                if index == total or time.monotonic() - told > 1:
                    told = time.monotonic()
                    listener.move(what, index, total, copy.address)
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise
