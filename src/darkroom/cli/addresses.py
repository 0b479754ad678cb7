"""Addresses on the command line (`s3://bucket/cats` for a folder or a file): the one place where they become working copies, for every command.

A word that is an address is replaced by the path of its working copy before the command sees it, and what the command wrote is pushed when it ends. `USES`
says of each parameter that takes a place what the command does with it. Results, messages and files that are written name the address (`files.told`).
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any, Literal, NamedTuple

from darkroom.errors import PlaceError

Mode = Literal["read", "write", "glance", "within", "later", "here"]


class Use(NamedTuple):
    """What a command does with a place that a parameter names."""

    mode: Mode
    """read: it must be there. write: made or changed, and pushed. glance: headers are enough. within: read, and written in other words (`FILE:0.8`,
    `METRIC=FILE`). later: left as it is, for a recipe or another spec, which is brought near by its job. here: a place of this machine alone; an address is
    refused."""
    unless: str = ""
    """Parameters, separated by spaces: one of them that is given leaves a written place to be read only."""


READ, WRITE, GLANCE, WITHIN, LATER, HERE = Use("read"), Use("write"), Use("glance"), Use("within"), Use("later"), Use("here")
BESIDE = Use("write", "out")
"""Read; where no --out is given, the result goes beside it."""
DRAWING = {"base": READ, "refiner": READ, "adapter": WITHIN, "adapters": READ, "embedding": WITHIN, "settings": LATER}
USES: dict[str, Mapping[str, Use]] = {
    "collect": {"to": Use("write", "failures"), "source": READ},
    "screen": {"dataset": WRITE, "like": READ},
    "caption": {"dataset": Use("write", "dry_run"), "config": READ, "model": READ, "settings": WITHIN},
    "dataset show": {"dataset": READ, "base": READ, "html": WRITE},
    "dataset encode": {"dataset": READ, "recipe": READ, "base": LATER, "settings": LATER},
    "dataset prepare": {"dataset": WRITE, "masks": READ},
    "dataset shards": {"dataset": READ, "to": WRITE},
    "dataset unpack": {"shards": READ, "to": WRITE},
    "train": {"recipe": READ, "images": LATER, "base": LATER, "out": WRITE, "settings": LATER},
    "resume": {"run": WRITE},
    "recipes": {"name": READ},
    "runs list": {"folder": GLANCE},
    "runs show": {"run": BESIDE, "out": WRITE},
    "trial": {
        "file": READ, "fill": WITHIN, "adapter": WITHIN, "prompts": READ, "reference": READ, "base": READ, "scorer": READ, "out": WRITE, "pilot": READ,
        "settings": LATER,
    },
    "demo": {"out": WRITE, "pictures": READ},
    "score": {
        "folder": BESIDE, "prompts": READ, "reference": READ, "training": READ, "base_pictures": READ, "beside": READ, "scorer": READ,
        "model": WITHIN, "out": WRITE,
    },
    "pick": {"run": BESIDE, "held_out": READ, "scorer": READ, "out": WRITE, "settings": LATER},
    "tune-weights": {"trial": READ, "adapter": WITHIN, "out": WRITE, "settings": LATER},
    "rate": {"trial": WRITE, "sheet": WRITE, "answers": READ},
    "wrong": {"to": WRITE, "base": READ, "words": READ, "scenes": READ, "refiner": READ},
    "generate": {**DRAWING, "out": WRITE, "image": READ, "mask": READ, "keep": READ, "control": WITHIN, "tiny": READ, "again": BESIDE},
    "grid": {**DRAWING, "prompt": READ, "axis": WITHIN, "arm": WITHIN, "out": WRITE},
    "prompt": {"embedding": WITHIN, "base": READ},
    "adapter show": {"file": READ, "base": READ},
    "adapter convert": {"file": Use("write", "out bundle"), "out": WRITE, "base": READ, "bundle": BESIDE},
    "adapter merge": {"files": WITHIN, "out": WRITE, "into": READ, "base": READ, "config": READ},
    "adapter extract": {"tuned": READ, "base": READ, "out": WRITE, "config": READ},
    "adapter resize": {"file": BESIDE, "out": WRITE, "base": READ, "config": READ},
    "adapter diff": {"a": READ, "b": READ, "base": READ, "config": READ},
    "base show": {"model": GLANCE},
    "base convert": {"model": READ, "out": WRITE, "vae": READ, "config": READ},
    "base merge": {"models": READ, "out": WRITE},
    "import kohya": {"config": READ, "out": WRITE},
    "import diffusers": {"command": READ, "out": WRITE},
    "export": {"run": READ, "to": WRITE, "trial": READ},
    "studio": {"folder": HERE, "more": HERE},
}  # fmt: skip
INNER = re.compile(r"""[a-z][a-z0-9+.\-]+://[^\s,;|="']+?(?=(?::[-+]?[0-9.]+)?(?:@[a-z0-9]+)?(?:[\s,;|="']|$))""", re.IGNORECASE)
"""An address within other words: up to a weight, a branch or checkpoint behind "@", a comma or the end."""


class Word(NamedTuple):
    """A value on the command line: which word it is, the parameter it is for, what stands before it in the word (`--out=`)."""

    place: int
    name: str
    text: str
    before: str = ""
    several: bool = False
    """Whether all of the parameter's values count, or the last one alone."""


@contextmanager
def brought_near(arguments: Sequence[str], root: Callable[[], Any]) -> Iterator[list[str]]:
    """The command line with working copies in place of addresses; at the end of the block what was written is pushed. `root()` is the tree of commands.

    Raises PlaceError. Without an address nothing happens, and nothing is imported.
    """
    if not any(":/" in word for word in arguments) or "--help" in arguments:
        yield list(arguments)
        return
    name, command, start = _found(root(), arguments)
    uses, words = USES.get(name, {}), list(_values(command, arguments, start))
    given, changed = {word.name for word in words}, list(arguments)
    last = {word.name: word.place for word in words}
    with ExitStack() as stack:
        for word in words:
            if (use := uses.get(word.name)) is not None and (word.several or word.place == last[word.name]):
                changed[word.place] = word.before + _near(word.text, use, given & set(use.unless.split()), stack)
        yield changed


def _found(command: Any, arguments: Sequence[str]) -> tuple[str, Any, int]:
    """The command that the line names, and where its own words begin."""
    names, at = list[str](), 0
    while hasattr(command, "commands"):
        if at < len(arguments) and arguments[at] in command.commands:
            names.append(arguments[at])
            at += 1
        elif "list" in command.commands:  # `darkroom runs FOLDER`
            names.append("list")
        else:
            break
        command = command.commands[names[-1]]
    return " ".join(names), command, at


def _values(command: Any, arguments: Sequence[str], start: int) -> Iterator[Word]:
    """Every value with its parameter, as the parser will read them. What it will complain of is left to it."""
    options = {option: param for param in command.params for option in (*param.opts, *param.secondary_opts)}
    places = [param for param in command.params if param.param_type_name == "argument"]
    index, taken, only_places = start, 0, False
    while index < len(arguments):
        word = arguments[index]
        option, equals, value = word.partition("=")
        param = options.get(option) if word.startswith("-") and not only_places else None
        if word == "--" and not only_places:
            only_places = True
        elif param is not None and equals:
            yield Word(index, param.name, value, f"{option}=", param.multiple)
        elif param is not None:
            count = 0 if param.is_flag else param.nargs
            at = range(index + bool(count), min(index + 1 + count, len(arguments)))
            yield from (Word(i, param.name, arguments[i] if count else "", several=param.multiple or count > 1) for i in at)
            index += count
        elif places and (only_places or not word.startswith("-")):
            yield Word(index, places[min(taken, len(places) - 1)].name, word, several=True)
            taken += 1
        index += 1


def _near(text: str, use: Use, only_read: Collection[str], stack: ExitStack) -> str:
    """The value with the path of the working copy where an address was. Raises PlaceError."""
    from darkroom import places

    match use.mode:
        case "later":
            return text
        case "within":
            return INNER.sub(lambda found: str(places.near(found[0], Lines())) if places.is_address(found[0]) else found[0], text)
        case _ if not places.is_address(text):
            _check_path(text, use.mode)
            return text
        case "here":
            raise PlaceError(f"{text}: is an address, and a folder of this machine is wanted here: name that, and bring what is needed into it.")
        case "glance":
            return str(places.glance(text, Lines()))
        case "write" if not only_read:
            return str(stack.enter_context(places.writing(text, Lines())))
    return str(places.near(text, Lines()))


def _check_path(text: str, mode: Mode) -> None:
    """That a path is no address with a slip of the pen: it would become a folder called "s3:". Raises PlaceError."""
    from darkroom import places

    scheme, _, rest = text.partition(":/")
    if rest.startswith("/") and mode in ("write", "here") and scheme.lower() in ("http", "https"):
        raise PlaceError(f"{text}: is a page of the web, where nothing can be written. Name a folder, or a store's address as s3://BUCKET/NAME.")
    if rest and not rest.startswith("/") and places.is_known(f"{scheme}://"):
        raise PlaceError(f"{text}: an address has two slashes: {scheme}://{rest}. For a path of this name write ./{text}.")


class Lines:
    """Told on standard error, before and after the command's own progress."""

    def say(self, text: str) -> None:
        """A line for the person."""
        print(text, file=sys.stderr)

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """A line at the end; on a terminal one that counts."""
        if sys.stderr.isatty():
            print(f"\r{what} {done}/{total} {note}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done == total:
            print(f"{what} {done}/{total} {note}", file=sys.stderr)
