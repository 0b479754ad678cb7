"""A grid: the same request with some of its fields varied along axes, as single pictures and one labelled sheet."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from darkroom.device import Precision
from darkroom.errors import RecipeError
from darkroom.files import atomic, sha256_bytes, told, writable_folder, write_json, write_text
from darkroom.jobs.generate import draw_files, parse_adapter, resolve
from darkroom.jobs.watch import Watcher
from darkroom.sampling.request import Request
from darkroom.spec import Spec, Tree, override

if TYPE_CHECKING:
    from darkroom.sampling.memory import Memory

LARGEST = 4096  # pictures in one grid


class Stop(Spec):
    """One place along an axis."""

    label: str
    """What stands beside the row or above the column."""
    settings: tuple[str, ...]
    """Settings `path=value` of the request; "adapter=FILE:0.5+FILE" and "weight=0.5" (of all its adapters) are understood too."""


class Axis(Spec):
    """What is varied."""

    name: str
    stops: tuple[Stop, ...] = Field(min_length=1)


class Grid(Spec):
    """A request and the axes along which it is varied."""

    title: str = ""
    request: dict[str, Any]
    """The request that all pictures share, as in a PNG."""
    axes: tuple[Axis, ...] = Field(min_length=1)
    """The first goes across, the second down, further ones make blocks: the third across, the fourth down, and so on."""

    @model_validator(mode="after")
    def _sensible(self) -> Grid:
        names = [axis.name for axis in self.axes]
        if len(set(names)) < len(names):
            raise ValueError(f"an axis stands twice: {', '.join(names)}")
        count = 1
        for axis in self.axes:
            count *= len(axis.stops)
            labels = [stop.label for stop in axis.stops]
            if len(set(labels)) < len(labels):
                raise ValueError(f"axis {axis.name}: a value stands twice: {', '.join(labels)}")
        if count > LARGEST:
            raise ValueError(f"{count} pictures are more than {LARGEST} in one grid: take fewer values")
        return self


def parse_axis(text: str) -> Axis:
    """ "guidance=3,5,8", or with bars where values hold commas: "prompt=a cat, red|a dog". Raises RecipeError."""
    path, equals, values = text.partition("=")
    path = path.strip()
    if not equals or not path or not values.strip():
        raise RecipeError(f'--axis {text}: write it as FIELD=VALUE,VALUE, for example --axis guidance=3,5,8 (or with "|" where values hold commas).')
    parts = [part.strip() for part in values.split("|" if "|" in values else ",")]
    plain = path in ("prompt", "negative", "adapter")
    return Axis(name=path, stops=tuple(Stop(label=part if plain else f"{path} {part}", settings=(f"{path}={part}",)) for part in parts))


def parse_arm(text: str) -> Stop:
    """ "NAME: negative=wrong; adapter=wrong.safetensors:0.8", or "NAME" for the request as it is. Raises RecipeError."""
    name, colon, rest = text.partition(":")
    settings = tuple(part.strip() for part in rest.split(";") if part.strip())
    if not name.strip() or (colon and not settings) or any("=" not in part for part in settings):
        raise RecipeError(f'--arm {text}: write it as "NAME: field=value; field=value", or "NAME" alone for the request as it is.')
    return Stop(label=name.strip(), settings=settings)


def applied(tree: Tree, settings: Sequence[str]) -> Tree:
    """The request's tree with a stop's settings. `adapter` replaces what is worn ("none" for nothing, "+" between several); `weight` is set last."""
    weights = []
    for setting in settings:
        path, _, value = (part.strip() for part in setting.partition("="))
        match path:
            case "adapter":
                worn = [] if value in ("none", "") else [parse_adapter(part.strip()).model_dump() for part in value.split("+")]
                tree = {**tree, "adapters": worn}
            case "weight":
                weights.append(setting)
            case "negative" if value in ("none", "zeroed"):
                tree = {key: item for key, item in tree.items() if key != "negative"}
            case "prompt" | "negative" | "image" | "mask" | "keep" | "base" | "sampler" | "language":
                tree = {**tree, path: value.strip('"')}
            case "refiner":
                tree = {key: item for key, item in tree.items() if key != "refiner"} | ({} if value == "none" else {"refiner": {"model": value}})
            case _:
                tree = override(tree, [setting])
    for setting in weights:
        value = override({}, [setting])["weight"]
        if not tree.get("adapters"):
            raise RecipeError(f"weight={value}: there is no adapter whose weight could be set. Name one with --adapter or an axis adapter=.")
        tree = {**tree, "adapters": [{**worn, "weight": value} for worn in tree["adapters"]]}
    return tree


def cells(grid: Grid, adapters: Path | None = None) -> Iterator[tuple[tuple[int, ...], Request]]:
    """Every place of the grid with its request. Raises RecipeError for a setting that no request has."""
    for place in itertools.product(*(range(len(axis.stops)) for axis in grid.axes)):
        stops = [axis.stops[at] for axis, at in zip(grid.axes, place, strict=True)]
        settings = [setting for stop in stops for setting in stop.settings]
        tree = applied(json.loads(json.dumps(grid.request)), settings)
        yield place, resolve(Request.from_tree(tree, "grid, " + ", ".join(stop.label for stop in stops)), adapters)


def run_grid(grid: Grid, out: Path, device: str = "auto", precision: Precision = "auto", watcher: Watcher | None = None, memory: Memory = "full",
             adapters: Path | None = None) -> dict[str, Any]:  # fmt: skip
    """Draw what is not drawn yet to OUT/pictures, and OUT/grid.png, grid.json and grid.toml beside them. Goes on where it was stopped."""
    from darkroom.sampling.memo import Memo
    from darkroom.sampling.sheet import sheet

    asked = dict(cells(grid, adapters))
    writable_folder(out)
    files = {place: out / "pictures" / f"{_name(request)}.png" for place, request in asked.items()}
    work = {files[place]: request for place, request in asked.items()}  # cells that ask for the same picture share it
    memo = Memo()
    ordered = sorted(work.items(), key=lambda item: _nearness(item[1]))
    draw_files(((request, path) for path, request in ordered), device, precision, watcher, len(work), memory=memory, memo=memo, resume=True)
    rows, blocks, table = _layout(grid, files)
    with atomic(out / "grid.png") as part:
        sheet(rows, blocks, table, _side(len(table[0])), grid.title).save(part, "PNG", optimize=True)
    listed = [
        {"labels": [axis.stops[at].label for axis, at in zip(grid.axes, place, strict=True)], "file": path.relative_to(out).as_posix()}
        for place, path in files.items()
    ]
    result = {"title": grid.title, "grid": str(out / "grid.png"), "axes": [axis.name for axis in grid.axes], "pictures": listed, "drawn": len(work),
              "shared_steps": memo.reused}  # fmt: skip
    write_text(out / "grid.toml", grid.to_toml())
    write_json(out / "grid.json", result)
    return result


def _name(request: Request) -> str:
    return f"seed{request.seed}-{sha256_bytes(told(request.model_dump_json()).encode())[:12]}"


def _nearness(request: Request) -> tuple[str, ...]:
    """Requests that share models, then the beginning of their walk, stand side by side."""
    tree = request.model_dump(mode="json")
    models = [tree.pop(name) for name in ("base", "adapters", "embeddings", "controls")]
    late = [tree.pop(name) for name in ("refiner", "upscale", "feather", "tiling")]
    said = [tree.pop(name) for name in ("prompt", "negative")]
    seed = tree.pop("seed")
    return tuple(json.dumps(part, sort_keys=True) for part in (models, late[0] and late[0]["model"], tree, said, late, f"{seed:020d}"))


def _layout(grid: Grid, files: dict[tuple[int, ...], Path]) -> tuple[list[str], list[Any], list[list[Path]]]:
    """Axes 0, 2, 4 ... go across and 1, 3, 5 ... down; the last of each side varies slowest."""
    from darkroom.sampling.sheet import Block

    across, down = range(0, len(grid.axes), 2), range(1, len(grid.axes), 2)

    def label(places: dict[int, int], axes: Sequence[int]) -> str:
        return ", ".join(grid.axes[axis].stops[places[axis]].label for axis in axes)

    def walk(axes: Sequence[int]) -> list[dict[int, int]]:
        slow_first = list(reversed(axes))
        return [dict(zip(slow_first, at, strict=True)) for at in itertools.product(*(range(len(grid.axes[axis].stops)) for axis in slow_first))]

    columns, rows = walk(across), walk(down)
    table = [[files[tuple({**row, **column}[axis] for axis in range(len(grid.axes)))] for column in columns] for row in rows]
    headed = itertools.groupby(columns, lambda column: label(column, across[1:]))
    blocks = [Block(heading, [label(column, across[:1]) for column in group]) for heading, group in headed]
    if len(across) == 1:  # one block a column, so that long labels find room above it
        blocks = [Block(name, [""]) for name in blocks[0].columns]
    return [label(row, down) for row in rows], blocks, table


def _side(columns: int) -> int:
    return 256 if columns <= 4 else 192 if columns <= 8 else 128
