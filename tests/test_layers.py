"""The floors of the house hold: imports point strictly down, and heavy libraries wait until somebody needs them."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "darkroom"
FLOORS = (  # house.md
    "errors values files fence device spec places | prompt statistics | data sdxl metrics | methods sampling pocket captioning | "
    "train | jobs | evidence | web | cli"
)
RANK = {room: rank for rank, floor in enumerate(FLOORS.split("|")) for room in floor.split()}
EXEMPT = {"darkroom", "darkroom.__main__"}  # the public names load from every floor on first use
HEAVY = {"torch", "torchvision", "transformers", "diffusers", "peft", "accelerate", "safetensors.torch"}  # not below rank 2 at module level
OPTIONAL = {"bitsandbytes", "ray", "wandb", "fsspec", "s3fs"}  # nowhere at module level


class Import(NamedTuple):
    importer: str
    target: str
    line: int
    deferred: bool  # inside a function

    def __str__(self) -> str:
        return f"{self.importer}, line {self.line}: {self.target}"


def room(module: str) -> str:
    """The second word: data for darkroom.data.batch."""
    return module.split(".")[1] if "." in module else ""


def imports(module: str, source: str, is_package: bool = False) -> Iterator[Import]:
    """Every import of a module, those inside functions too, but for `if TYPE_CHECKING`. `from a import b` is a.b, for b may be a module."""

    def walk(node: ast.AST, deferred: bool) -> Iterator[Import]:
        match node:
            case ast.If(test=ast.Name(id="TYPE_CHECKING") | ast.Attribute(attr="TYPE_CHECKING")):
                for child in node.orelse:
                    yield from walk(child, deferred)
                return
            case ast.Import():
                yield from (Import(module, name.name, node.lineno, deferred) for name in node.names)
            case ast.ImportFrom():
                above = module.split(".")[: len(module.split(".")) - node.level + is_package] if node.level else []
                stem = ".".join([*above, *([node.module] if node.module else [])])
                yield from (Import(module, f"{stem}.{name.name}", node.lineno, deferred) for name in node.names)
            case ast.Call(func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"), args=[first, *_]):
                known = isinstance(first, ast.Constant) and isinstance(first.value, str)
                yield Import(module, first.value if known else "darkroom.<computed>", node.lineno, deferred)
        inner = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from walk(child, inner)

    return walk(ast.parse(source), False)


def points_up(found: Import) -> bool:
    """Whether an import breaks the table. Within a room, and within the ground, all may know each other."""
    if found.importer in EXEMPT or found.target.split(".")[0] != "darkroom" or found.target == "darkroom.__version__":
        return False
    here, there = room(found.importer), room(found.target)
    if here not in RANK or there not in RANK:  # a room without a floor, or a public name, which would load from anywhere
        return True
    return here != there and RANK[there] >= RANK[here] and not RANK[here] == RANK[there] == 0


def too_heavy(found: Import) -> bool:
    """Whether a module-level import makes everybody pay."""
    if found.deferred:
        return False

    def is_one_of(names: set[str]) -> bool:
        return any(found.target == name or found.target.startswith(name + ".") for name in names)

    return is_one_of(OPTIONAL) or (RANK.get(room(found.importer), 0) < 2 and is_one_of(HEAVY))


@pytest.fixture(scope="module")
def house() -> list[Import]:
    found: list[Import] = []
    for path in sorted(SOURCE.rglob("*.py")):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        package = parts[-1] == "__init__"
        found += imports(".".join(parts[:-1] if package else parts), path.read_text(encoding="utf-8"), package)
    return found


def test_every_room_has_a_floor() -> None:
    rooms = {path.stem for path in SOURCE.glob("*.py") if not path.stem.startswith("__")} | {path.parent.name for path in SOURCE.glob("*/*.py")}
    assert rooms - RANK.keys() == set(), "give the new room a rank in house.md and here"


def test_the_walk_sees_the_house(house: list[Import]) -> None:
    edges = {(room(i.importer), room(i.target), i.deferred) for i in house if i.target.startswith("darkroom.")}
    assert {("data", "errors", False), ("cli", "evidence", True), ("train", "data", False)} <= edges, "the walk misses imports that are there"


def test_imports_point_strictly_down(house: list[Import]) -> None:
    assert [str(i) for i in house if points_up(i)] == []


def test_the_ground_has_no_cycles(house: list[Import]) -> None:
    graph: dict[str, set[str]] = {}
    for i in house:
        here, there = room(i.importer), room(i.target)
        if i.target.startswith("darkroom.") and RANK.get(here) == RANK.get(there) == 0 and here != there:
            graph.setdefault(here, set()).add(there)
    TopologicalSorter(graph).prepare()  # raises CycleError
    assert graph, "the ground rooms know each other a little"


def test_heavy_libraries_wait(house: list[Import]) -> None:
    assert [str(i) for i in house if too_heavy(i)] == []


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("darkroom.data.batch", "from darkroom.train.loop import fit", True),
        ("darkroom.data.batch", "def f():\n    if x:\n        import darkroom.cli.main", True),
        ("darkroom.data.batch", "from darkroom import sdxl", True),  # a neighbour
        ("darkroom.data.batch", "from darkroom import Recipe", True),  # a public name loads upward
        ("darkroom.data.batch", "import darkroom", True),
        ("darkroom.data.batch", "from ..train import loop", True),
        ("darkroom.data", "from ..train import loop", True),
        ("darkroom.data.batch", "from . import buckets", False),
        ("darkroom.data", "from .buckets import fit", False),
        ("darkroom.data.batch", "import importlib\nimportlib.import_module('darkroom.jobs.train')", True),
        ("darkroom.data.batch", "import importlib\nimportlib.import_module(name)", True),
        ("darkroom.data.batch", "if TYPE_CHECKING:\n    from darkroom.train.loop import fit", False),
        ("darkroom.data.batch", "if typing.TYPE_CHECKING:\n    pass\nelse:\n    from darkroom.train.loop import fit", True),
        ("darkroom.data.batch", "from darkroom import __version__\nfrom darkroom.values import seed_for", False),
        ("darkroom.prompt", "from darkroom.statistics import paired", True),  # neighbours of one rank
        ("darkroom.device", "from darkroom.values import seed_for", False),  # the ground is one room
        ("darkroom.errors", "from darkroom.statistics import paired", True),
        ("darkroom.attic.new", "from darkroom.errors import DarkroomError", True),  # no such room in the table
    ],
)
def test_the_rule_can_fail(module: str, source: str, wrong: bool) -> None:
    assert any(points_up(i) for i in imports(module, source, is_package=module == "darkroom.data")) == wrong


@pytest.mark.parametrize(
    ("module", "source", "wrong"),
    [
        ("darkroom.statistics", "import torch", True),
        ("darkroom.device", "from torch import nn", True),
        ("darkroom.device", "try:\n    import diffusers\nexcept ImportError:\n    pass", True),
        ("darkroom.device", "def f():\n    import torch", False),
        ("darkroom.files", "from safetensors.torch import load_file", True),
        ("darkroom.data.batch", "import torch", False),
        ("darkroom.train.optimizers", "class A:\n    import bitsandbytes", True),
        ("darkroom.train.optimizers", "import ray.tune", True),
        ("darkroom.train.optimizers", "import raylib", False),
        ("darkroom", "import torch", True),
    ],
)
def test_the_weight_rule_can_fail(module: str, source: str, wrong: bool) -> None:
    assert any(too_heavy(i) for i in imports(module, source)) == wrong
