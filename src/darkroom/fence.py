"""What a page's work may touch: the studio's folders, and the places where programs keep their own things. Nothing else is read, listed or written.

A person's own command follows the person's links wherever they lead: there is no fence around it. Inside one run the server's answers (`within`), and every
job that a page ordered ($DARKROOM_GROUNDS, which is heard as soon as darkroom is imported, in each process that a job starts). It is held up twice:

    leads_out, let            whoever walks a folder passes over what leads out and says so; whoever reads what a page or a file named opens the real
                              path that was looked at. They count the studio's folders, Darkroom's cache and its own files, no more.
    Python's audit events     (PEP 578) come before anything is opened, listed, made, renamed, linked or removed: what nobody thought of is refused there.
                              Where programs keep things is open too, or no library could be loaded.

    hand_over                 the same question for libraries that open files by themselves: safetensors, and what loads whole models.

Hard links are other names of the same file and cannot be told.
"""

# ruff: noqa: PTH100, PTH111, PTH117, PTH118, PTH119, PTH120, PTH123 - asked for every file that is opened: Path objects cost more than the answer

from __future__ import annotations

import errno
import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from darkroom.errors import DarkroomError
from darkroom.files import cache_folder

Named = TypeVar("Named", str, Path)
GROUNDS = "DARKROOM_GROUNDS"
"""The environment's word for the folders of a job, as a JSON list."""
WHY = "lies outside of the studio's folders, or a link leads there"
WAY_OUT = "For a page nothing is read or written there. Give that folder with `darkroom studio --folder FOLDER`, or use the command line."
LARGEST_INDEX = 1 << 26
"""Bytes of an index of weights that is looked into."""

NAMED = re.compile(r"^(?!HOME$|PWD$|OLDPWD$).*(_HOME|_CACHE|DIR|_PATH|_ROOT|_FILE|_BUNDLE)$|^PATH$|^PYTHONPATH$")
"""Variables of the environment that name places of programs."""
SYSTEM = (
    "/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt", "/nix", "/snap", "/System", "/Library", "/Applications",
    "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/mime.types", "/etc/httpd", "/etc/apache", "/etc/apache2", "/etc/localtime", "/etc/timezone",
    "/etc/os-release", "/etc/lsb-release", "/etc/debian_version", "/etc/hosts", "/etc/resolv.conf", "/etc/nsswitch.conf", "/etc/machine-id", "/etc/fonts",
    "/etc/OpenCL", "/etc/nvidia", "/etc/ld.so.cache",
)  # fmt: skip
KERNEL = ("/proc", "/sys", "/dev")
"""These are followed to where they lead: /proc/self/root is all of the machine."""
OF_THE_PERSON = (".cache", ".config", ".local", ".triton", ".nv", ".netrc", ".huggingface", ".torch", ".keras", ".matplotlib", "Library/Caches")
"""Where programs keep their own things in a person's folder."""


class Outside(DarkroomError, PermissionError):
    """What a page's work named lies outside of the studio's folders."""

    def __init__(self, path: str) -> None:
        super().__init__(errno.EACCES, WHY, path)
        self.path = path

    def __str__(self) -> str:
        return f"{self.path}: {WHY}. {WAY_OUT}"

    def __reduce__(self) -> tuple[type[Outside], tuple[str]]:
        return Outside, (self.path,)  # it comes out of other processes


@dataclass(frozen=True)
class Fence:
    """Roots of four kinds, each as `_root` writes it: a path that begins with it lies below it."""

    grounds: tuple[str, ...]
    """The folders that pages work in."""
    own: tuple[str, ...]
    """Darkroom's cache, and what it brings along."""
    programs: tuple[str, ...]
    kernel: tuple[str, ...] = tuple(f"{place}/" for place in KERNEL)

    @classmethod
    def around(cls, grounds: Iterable[str | Path]) -> Fence:
        """The fence around these folders, for this machine and this environment."""
        roots = tuple(os.path.realpath(ground) for ground in grounds)
        own = {form for place in (cache_folder(), Path(__file__).parent) for form in _forms(place)}
        programs = {form for place in (*_programs(), *_named_places(roots)) for form in _forms(place)}
        return cls(tuple(map(_root, roots)), tuple(own), tuple(programs))

    @cached_property
    def nested(self) -> tuple[str, ...]:
        """Places of programs in the grounds, as an environment of Python beside the pictures: they may link to where they like."""
        places = (*self.own, *self.programs)
        return tuple(place for place in places if place.startswith(self.grounds) and not any(ground.startswith(place) for ground in self.grounds))

    def holds(self, real: str) -> bool:
        """Whether a real path lies in the grounds, or is Darkroom's own."""
        return _root(real).startswith((*self.grounds, *self.own))

    def opens(self, path: str, follow: bool = True) -> bool:
        """Whether Python may touch the path. `follow`: the thing that a link at its end leads to; else the link itself, as where it is renamed."""
        plain = os.path.abspath(path)
        below = _root(plain)
        inside = below.startswith(self.grounds)
        if below.startswith(self.nested) or (not inside and below.startswith((*self.own, *self.programs))):
            return True
        real = os.path.realpath(path) if follow else os.path.join(os.path.realpath(os.path.dirname(plain)), os.path.basename(plain))
        return self.holds(real) or (not inside and _root(real).startswith((*self.programs, *self.kernel)))


_asking: ContextVar[Fence | None] = ContextVar("fence", default=None)
_standing: list[Fence] = []
_hooked: list[bool] = []


def stand(grounds: Iterable[str | Path]) -> None:
    """Put the fence around this process; none where there are no grounds."""
    _standing[:] = [Fence.around(grounds)] if (grounds := tuple(grounds)) else []
    listen()


def heard() -> None:
    """Put it around this process where the environment says so: `variable` of the one who started it."""
    if said := os.environ.get(GROUNDS):
        stand(json.loads(said))


def variable(grounds: Iterable[str | Path]) -> dict[str, str]:
    """What the environment of a process says, for it to be inside; nothing where there are no grounds."""
    roots = [str(ground) for ground in grounds]
    return {GROUNDS: json.dumps(roots)} if roots else {}


@contextmanager
def within(fence: Fence) -> Iterator[None]:
    """Inside the fence for as long as the block takes, and whatever threads it asks with its context."""
    listen()
    before = _asking.set(fence)
    try:
        yield
    finally:
        _asking.reset(before)


def current() -> Fence | None:
    """The fence that stands around whoever asks."""
    return _asking.get() or (_standing[0] if _standing else None)


def leads_out(path: str | Path) -> bool:
    """Whether there is a fence, and the path's real place is outside of it."""
    fence = current()
    return fence is not None and not fence.holds(os.path.realpath(path))


def let(path: Path) -> Path:
    """The path to open: as it is named, or inside a fence its real place, looked up once. Raises Outside."""
    fence = current()
    if fence is None:
        return path
    real = os.path.realpath(path)
    if not fence.holds(real):
        raise Outside(str(path))
    return Path(real)


def hand_over(path: Named) -> Named:
    """The path, for a library that opens files by itself: it may open it, and all below it, as Python may. What is not there is no path. Raises Outside."""
    fence = current()
    if fence is not None and os.path.lexists(path):
        for one in _all_of(path):
            if not fence.opens(one):
                raise Outside(one)
    return path


def _all_of(path: str | Path) -> Iterator[str]:
    """The path, what lies below it, and the files that indices of weights there name."""
    yield str(path)
    for here, folders, files in os.walk(path):
        yield from (os.path.join(here, name) for name in (*folders, *files))
        for index in (os.path.join(here, name) for name in files if name.endswith(".index.json")):
            yield from (os.path.join(here, name) for name in _parts(index))


def _parts(index: str) -> set[str]:
    """What an index of weights names."""
    try:
        with open(index, "rb") as file:
            return {str(name) for name in json.loads(file.read(LARGEST_INDEX))["weight_map"].values()}
    except (ValueError, KeyError, TypeError, AttributeError):
        return set()  # whoever reads it says what is wrong with it


def _forms(place: str | Path) -> set[str]:
    """As it is named, and where that really is."""
    return {_root(os.path.abspath(place)), _root(os.path.realpath(place))} - {_root(os.path.abspath(os.sep))}


def _root(path: str) -> str:
    """With a separator at its end: "/a/bc/" does not begin with "/a/b/"."""
    path = os.path.normcase(path)
    return path if path.endswith(os.sep) else path + os.sep


def _programs() -> Iterator[str | Path]:
    """Where Python, libraries, caches and the system keep their things."""
    yield from SYSTEM
    yield from (sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix, tempfile.gettempdir())
    home = Path(os.path.expanduser("~"))
    yield from (home / name for name in OF_THE_PERSON)
    yield from (home / ".cache" / name for name in ("huggingface", "torch"))  # people move these elsewhere by links
    yield from (os.environ[name] for name in ("SYSTEMROOT", "PROGRAMFILES", "PROGRAMDATA", "LOCALAPPDATA", "APPDATA") if name in os.environ)


def _named_places(roots: Iterable[str]) -> Iterator[str]:
    """What the environment and Python's path name, but for what holds a person's whole folder, or the grounds."""
    whole = [_root(place) for place in (os.path.realpath(os.path.expanduser("~")), *roots)]
    here = os.path.realpath(".")  # where `python -m` looks first
    said = [path for path in sys.path if os.path.realpath(path) != here]
    said += [path for name, value in os.environ.items() if NAMED.search(name) for path in value.split(os.pathsep)]
    yield from (path for path in said if os.path.isabs(path) and not any(place.startswith(_root(os.path.realpath(path))) for place in whole))


FOLLOWED = {"open": 1, "os.listdir": 1, "os.scandir": 1, "os.chdir": 1, "os.truncate": 1, "sqlite3.connect": 1}
"""Audit events by how many of their arguments name a thing that is opened itself."""
TOUCHED = {"os.mkdir": 1, "os.rename": 2, "os.remove": 1, "os.rmdir": 1}
"""The same of those that change a name and not what it leads to."""


def listen() -> None:
    """Have Python ask from now on, before it opens anything."""
    if not _hooked:
        _hooked.append(True)
        sys.addaudithook(_look)  # it stays for good, and looks at nothing where there is no fence


def _look(event: str, said: tuple[Any, ...]) -> None:
    """Before anything is touched. Raises Outside."""
    if event not in EVENTS or (fence := current()) is None:
        return
    for path, follow in _named(event, said):
        if not fence.opens(path, follow):
            raise Outside(path)


def _named(event: str, said: tuple[Any, ...]) -> Iterator[tuple[str, bool]]:
    """The paths of an event, each with whether a link at its end is followed. Numbers are files that are open already."""
    follow = event in FOLLOWED
    match event:
        case "open" if said[1] is None and not said[2] & CHANGING and isinstance(said[0], str) and os.path.basename(said[0]) == said[0]:
            return  # a name below a folder that is open already, as shutil.rmtree goes down
        case "os.remove" | "os.rmdir" if said[1] != -1:
            return  # likewise
        case "os.link":
            pairs = [(said[0], True), (said[1], False)]
        case "os.symlink":
            pairs = [(os.path.join(os.path.dirname(os.fsdecode(said[1])), os.fsdecode(said[0])), True), (said[1], False)]
        case _:
            pairs = [(path, follow) for path in said[: FOLLOWED.get(event) or TOUCHED[event]]]
    for path, through in pairs:
        if isinstance(path, str | bytes | os.PathLike) and (name := os.fsdecode(path)) and not (event == "sqlite3.connect" and name.startswith(":")):
            yield name, through


CHANGING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
EVENTS = frozenset({*FOLLOWED, *TOUCHED, "os.link", "os.symlink"})
