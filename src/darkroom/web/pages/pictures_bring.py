"""What brings pictures in, and what is asked of a job: collect, screen, caption, prepare. Each is a command of Darkroom in the queue."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from darkroom.captioning import KINDS
from darkroom.data.columns import Columns
from darkroom.data.picture import ENDINGS
from darkroom.data.screening import limits
from darkroom.data.sources import Wanted, open_source
from darkroom.data.tables import is_table
from darkroom.errors import DatasetError
from darkroom.jobs.collected import failures_of
from darkroom.jobs.datasets import free_name, lay_cats
from darkroom.web.answer import Answer, body, number, text, texts
from darkroom.web.batches import Batches
from darkroom.web.grounds import Refused
from darkroom.web.naming import as_word
from darkroom.web.pages.pictures_desk import Desk

FOLDER = "datasets"
NAME = re.compile(r"[\w][\w .-]{0,60}")
SMALLEST_CAT = 64
"""Pixels: the cats are 256 wide, and pocket draws 64. They are drawings, of which few bytes are enough."""
LISTED = 500
"""Failures that are listed."""
PATHS = frozenset({"model", "masks"})
SETTINGS = ("model", "subject", "template", "prompt", "threshold", "character_threshold", "beams", "longest", "batch", "url")
"""What a page may set of a captioner."""
OPTIONS = ("model", "subject", "template", "prompt", "batch")
"""Those that `darkroom caption` has an option of its own for."""
TABLE = ("column", "prefix", "suffix", "caption_column", "licence_column")
Tree = dict[str, Any]


def routes(desk: Desk) -> list[Route]:
    """/api/pictures/..., each answering {"order": ID} or {"orders": [...]}."""
    batches = Batches(desk.studio.uploads, desk.studio.line)

    def order(work: Callable[[Desk, Tree], Tree]) -> Any:
        async def handler(request: Request) -> Response:
            tree = await body(request)
            return Answer(await asyncio.to_thread(work, desk, tree))

        return handler

    def failures(request: Request) -> Response:
        folder = desk.folder(request.query_params.get("dataset", ""))
        found = failures_of(folder)
        listed = [{**one.facts, "address": _last(one.address, batches.place)} for one in found[:LISTED]]
        return Answer({"total": len(found), "failures": listed})

    def asked_for(request: Request) -> Response:
        return Answer({"captioners": [_captioner(kind) for kind in KINDS], "checks": limits(), "endings": sorted(ENDINGS)})

    def sweep(request: Request) -> Response:
        return Answer({"removed": batches.sweep()})

    works = {"bring": lambda desk, tree: _bring(desk, batches, tree), "cats": _cats, "screen": _screen, "caption": _caption, "prepare": _prepare}
    return [
        Route("/api/pictures/failures", failures),
        Route("/api/pictures/asked", asked_for),
        Route("/api/pictures/sweep", sweep, methods=["POST"]),
        *(Route(f"/api/pictures/{name}", order(work), methods=["POST"]) for name, work in works.items()),
    ]


def _bring(desk: Desk, batches: Batches, tree: Tree) -> Tree:
    """{"batch", "name", "smallest", "column"...}: collect what was uploaded into datasets/NAME, and screen it."""
    target = _target(desk, text(tree, "name", longest=80))
    options = {name: text(tree, name, "", 500) for name in TABLE}
    with batches.taken(text(tree, "batch"), target.name) as (folder, needs):
        tables, pictures = _sorted_out(folder)
        for table in tables:
            _only_addresses(table, options, target)
        orders = []
        for source in [*([folder] if pictures else []), *tables]:
            said = [f"--{name.replace('_', '-')}={value}" for name, value in options.items() if value and source != folder]
            argv = [
                "collect",
                as_word(desk.studio.grounds, source),
                "--to",
                as_word(desk.studio.grounds, target),
                *(["--link"] if source == folder else []),
                *said,
            ]
            orders.append(desk.studio.put(f"Collect {target.name}", argv, "pictures", "cpu")["order"])
            needs(orders[-1])
    orders.append(_put_screen(desk, target, tree))
    return {"orders": orders, "dataset": desk.studio.grounds.name(target)}


def _sorted_out(folder: Path) -> tuple[list[Path], int]:
    """The tables among the files, and how many pictures. A .txt beside a picture is its caption. Raises DatasetError where there is neither."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    pictures = {path.with_suffix("") for path in files if path.suffix.lower() in ENDINGS}
    tables = [path for path in files if is_table(path) and path.name != "metadata.jsonl" and path.with_suffix("") not in pictures]
    if pictures:
        tables = [path for path in tables if path.suffix.lower() != ".txt"]
    if not pictures and not tables:
        raise DatasetError("There is no picture and no table of addresses among the files.")
    return tables, len(pictures)


def _only_addresses(table: Path, options: Tree, target: Path) -> None:
    """That a table that came from a page names no files of this machine: those are the command line's. Raises Refused, DatasetError."""
    columns = Columns(options["column"], options["caption_column"], options["licence_column"])
    source = open_source(table, Wanted(columns, options["prefix"], options["suffix"]), target)
    for item in source.items():
        if item.local is not None:
            raise Refused(
                f"{table.name}, row {item.number + 1}: names a file of this machine. A table that is dropped here may name addresses (https://...) alone; "
                "drop the files themselves, or use `darkroom collect` where they lie."
            )


def _cats(desk: Desk, tree: Tree) -> Tree:
    """The demo's cats as datasets/cats, screened."""
    target = free_name(desk.studio.grounds.path(FOLDER), "cats")
    count = lay_cats(target)
    order = _put_screen(desk, target, {"smallest": SMALLEST_CAT, "without": ["compression"]})
    return {"orders": [order], "dataset": desk.studio.grounds.name(target), "pictures": count}


def _screen(desk: Desk, tree: Tree) -> Tree:
    """{"dataset", "smallest", "with": [...], "without": [...], "set": {"check.limit": value}, "defaults": bool}."""
    return {"orders": [_put_screen(desk, desk.folder(text(tree, "dataset")), tree)]}


def _put_screen(desk: Desk, folder: Path, tree: Tree) -> str:
    argv = ["screen", as_word(desk.studio.grounds, folder)]
    if tree.get("smallest") not in (None, ""):
        argv.append(f"--smallest={number(tree, 'smallest', 512, 1, 100_000)}")
    argv += [f"--with={check}" for check in texts(tree, "with", 50)] + [f"--without={check}" for check in texts(tree, "without", 50)]
    for limit in texts(tree, "set", 50):
        if not re.fullmatch(r"(?!unwanted)[a-z_]+\.[a-z_]+=[\w.+-]+", limit):  # unwanted.files names files
            raise Refused(f"{limit[:80]}: a limit is set as check.limit=value.")
        argv.append(f"--set={limit}")
    argv += ["--defaults"] if tree.get("defaults") is True else []
    return str(desk.studio.put(f"Screen {folder.name}", argv, "pictures", "cpu")["order"])


def _caption(desk: Desk, tree: Tree) -> Tree:
    """{"dataset", "by", settings of the captioner, "name", "trigger", "prefix", "suffix", "choose", "again", "only_missing"}."""
    folder, by = desk.folder(text(tree, "dataset")), text(tree, "by", longest=40)
    if by not in KINDS:
        raise Refused(f'"by" is one of {", ".join(KINDS)}.')
    settings = {key: _setting(desk, by, key, tree[key]) for key in SETTINGS if tree.get(key) not in (None, "")}
    KINDS[by].from_tree({key: value for key, value in settings.items() if key != "batch"}, f"--with {by}")
    argv = ["caption", as_word(desk.studio.grounds, folder), f"--with={by}"]
    argv += [f"--{key}={value}" if key in OPTIONS else f"--set={key}={value}" for key, value in settings.items()]
    argv += [f"--{key}={value}" for key in ("name", "trigger", "prefix", "suffix") if (value := text(tree, key, "", 500))]
    flags = {"--no-choose": tree.get("choose") is False, "--again": tree.get("again") is True, "--only-missing": tree.get("only_missing") is True}
    argv += [flag for flag, wanted in flags.items() if wanted]
    device = "cpu" if by in ("template", "server") else ""
    return {"orders": [desk.studio.put(f"Caption {folder.name} with {by}", argv, "pictures", device)["order"]]}


def _setting(desk: Desk, by: str, key: str, value: Any) -> Any:
    """A setting as a plain value. A model may be a folder of the workspace or a hub id; of a server it is only a name there. Raises Refused."""
    if not isinstance(value, str | int | float) or len(str(value)) > 2000:
        raise Refused(f'"{key}" must be a text or a number.')
    if key == "model" and by != "server" and desk.studio.grounds.path(str(value)).exists():
        return as_word(desk.studio.grounds, desk.studio.grounds.path(str(value)))
    return value


def _prepare(desk: Desk, tree: Tree) -> Tree:
    """{"dataset", "held_out", "seed", "masks", "alpha", "focus"}."""
    folder = desk.folder(text(tree, "dataset"))
    argv = ["dataset", "prepare", as_word(desk.studio.grounds, folder)]
    if held_out := text(tree, "held_out", "", 20).strip():
        argv.append(f"--held-out={held_out}")
    if tree.get("seed") not in (None, ""):
        argv.append(f"--seed={number(tree, 'seed', 0, 0, 2_147_483_647)}")
    if masks := text(tree, "masks", ""):
        argv.append(f"--masks={as_word(desk.studio.grounds, desk.studio.grounds.there(masks))}")
    argv += [f"--{name}" for name in ("alpha", "focus") if tree.get(name) is True]
    return {"orders": [desk.studio.put(f"Prepare {folder.name}", argv, "pictures", "cpu")["order"]]}


def _target(desk: Desk, name: str) -> Path:
    """datasets/NAME. Raises Refused."""
    name = name.strip()
    if not NAME.fullmatch(name) or name.endswith((".", " ")):
        raise Refused("A dataset's name has up to 61 letters, digits, blanks, dots, dashes and underscores, and begins with a letter or digit.")
    return desk.studio.grounds.path(f"{FOLDER}/{name}")


def _captioner(kind: str) -> Tree:
    fields: Iterable[tuple[str, Any]] = KINDS[kind].model_fields.items()
    told = [{"name": name, "default": info.default, "about": info.description} for name, info in fields if name in SETTINGS]
    return {"kind": kind, "about": (KINDS[kind].__doc__ or "").splitlines()[0], "settings": told}


def _last(address: str, place: Path) -> str:
    """An address as a person knows it: of an upload its name alone."""
    path = Path(address)
    return "/".join(path.relative_to(place).parts[2:]) if path.is_relative_to(place) else address
