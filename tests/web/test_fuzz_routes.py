"""Every route of the studio, with values that mean harm in the place of each thing it takes: it is refused in words, never a fault of ours, and no file of the
neighbour's is opened, changed or named in an order. The routes are the application's own,
    and the keys are read from their modules: a new route is tried before
its author writes a test.
"""

from __future__ import annotations

import ast
import copy
import hashlib
import importlib
import json
import os
import random
import re
import shutil
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from starlette.routing import Route
from starlette.testclient import TestClient

from darkroom.jobs.queue import Command, Line
from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.studio import Studio
from support.contents import furnish
from support.harm import GOOD, NAMES, SEEDS, WATCH, WRONG, Order, escapes, words_of

CANARY = "the neighbour's secret"
EVERY = int(os.environ.get("DARKROOM_FUZZ", "2"))
"""Hostile names that each place gets; another choice for each place."""


class Noted(Line):
    """A queue that takes orders as ever, starts none, and does not grow."""

    orders: list[Order]

    def put(self, order: Order) -> str:
        if not hasattr(self, "orders"):
            self.orders = []
        self.orders.append(order)
        id = super().put(order)
        if len(self.orders) > 1:
            self.cancel(id)
            self.remove(id)
        return id


@pytest.fixture
def studio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Studio]:
    """A furnished workspace beside a neighbour, whose queue takes orders and starts none, and whose questions are answered by nobody."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    neighbour, place = tmp_path / "neighbour", tmp_path / "workspace"
    neighbour.mkdir()
    for path in (
        tmp_path / "secret.txt",
        tmp_path / "secret.toml",
        *(neighbour / f"secret.{ending}" for ending in ("txt", "png", "toml", "json", "safetensors")),
    ):
        path.write_text(CANARY)
    (tmp_path / "photos").mkdir()
    place.mkdir()
    furnish(place)
    (place / "link").symlink_to(neighbour)
    (place / "chain").symlink_to(place / "link")
    for name in (
        "pictures/linked.png",
        "adapters/linked.safetensors",
        "recipes/linked.toml",
        "trials/linked/trial.json",
        "runs/linked/recipe.toml",
        "datasets/cats/linked.png",
        "datasets/cats/weary-cat.txt",
        "datasets/masks/weary-cat.png",
        "trials/one/pictures/linked.png",
        "runs/one/previews/000030_0.png",
        "runs/two/steps/000010/linked.safetensors",
    ):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).unlink(missing_ok=True)
        (place / name).symlink_to(neighbour / f"secret{Path(name).suffix}")
    for name in ("datasets/linked", "datasets/cats/linked", "pictures/linked", "recipes/linked", "runs/one/previews/linked", "uploads/linked"):
        (place / name).parent.mkdir(exist_ok=True)
        (place / name).symlink_to(neighbour)
    (place / ".darkroom" / "orders").mkdir(parents=True)
    (place / "link-to-own").symlink_to(place / ".darkroom")
    made = Studio(Grounds.of(place, [tmp_path / "photos"]), Door(), Noted(place / ".darkroom", starts=False))
    WATCH.place, WATCH.seen = tmp_path, []
    FINDINGS.clear()
    yield made
    WATCH.on = False


@pytest.fixture
def asked(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The commands that a page would have asked."""
    found: list[list[str]] = []

    async def ask(_: Studio, argv: list[str], longest: float = 0) -> dict[str, Any]:
        found.append([*Command(argv=tuple(argv)).argv])  # no NUL, and not too long
        return {"preflight": {}}

    for page in ("train", "runs"):
        monkeypatch.setattr(f"darkroom.web.pages.{page}.ask", ask)
    return found


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(
        create_app(studio), base_url="http://127.0.0.1", headers={"X-Darkroom": "1"}, raise_server_exceptions=False, follow_redirects=False
    ) as found:
        yield found


def routes(app: Any) -> list[tuple[Route, str]]:
    return [(route, method) for route in app.routes if isinstance(route, Route) for method in sorted((route.methods or set()) - {"HEAD"})]


@cache
def keys_of(module: str) -> tuple[str, ...]:
    """The words of a module that could be keys of what it takes."""
    tree = ast.parse(Path(str(importlib.import_module(module).__file__)).read_text(encoding="utf-8"))
    words = {node.value for node in ast.walk(tree) if isinstance(node, ast.Constant) and isinstance(node.value, str)}
    return tuple(sorted(word for word in words if re.fullmatch(r"[a-z_]{1,24}", word)))


def places(value: Any, here: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Where a tree has a value that can be another one."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    if here:
        yield here
    for key, one in inner:
        yield from places(one, (*here, key))


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    made = copy.deepcopy(value)
    at = made
    for key in place[:-1]:
        at = at[key]
    at[place[-1]] = new
    return made


def without(value: Any, place: tuple[Any, ...]) -> Any:
    made = copy.deepcopy(value)
    at = made
    for key in place[:-1]:
        at = at[key]
    del at[place[-1]]
    return made


def trials_of(path: str, module: str, seed: Any) -> Iterator[Any]:
    """What is sent: the good body with one thing changed, and bodies of the module's keys by chance."""
    draw = random.Random(f"fuzz {path}")
    yield seed
    for place in places(seed):
        yield without(seed, place)
        shallow = len(place) < 3
        for new in (*draw.sample(NAMES, EVERY if shallow else max(1, EVERY // 3)), *draw.sample(WRONG, EVERY if shallow else max(1, EVERY // 3))):
            yield replaced(seed, place, new)
    for _ in range(3):
        yield {key: draw.choice((*GOOD, *GOOD, *NAMES, *WRONG)) for key in keys_of(module) if draw.random() < 0.8}


def send(client: TestClient, route: Route, method: str, path: str, tree: Any) -> Any:
    """As a query where nothing is changed, else as a body; every answer is looked at."""
    WATCH.on = True
    try:
        if method in ("GET", "PUT", "DELETE"):
            query = {
                key: (value if isinstance(value, str) else json.dumps(value))[:20_000]
                for key, value in tree.items()
                if not isinstance(value, str) or value.isprintable()
            }
            answer = client.request(method, path, params=query, content=b"x" if method == "PUT" else None)
        else:
            answer = client.request(method, path, content=json.dumps(tree).encode(), headers={"Content-Type": "application/json"})
    finally:
        WATCH.on = False
    wrong = {
        "a fault": answer.status_code >= 500, "the neighbour's secret": CANARY in answer.text or "root:x:" in answer.text,
            "a traceback": "Traceback" in answer.text,
        "refused without words": 400 <= answer.status_code < 500 and len(said(answer)) <= 10, "opened": bool(WATCH.seen),
    }  # fmt: skip
    if found := [what for what, is_so in wrong.items() if is_so]:
        key = f"{method} {path[:60]} {found} {answer.status_code} {answer.text[:140]}"
        FINDINGS.setdefault(key, f"{answer.text[140:500]} {WATCH.seen} sent {str(tree)[:700]!r}")
        WATCH.seen.clear()
    return answer


def said(answer: Any) -> str:
    """Why it was refused."""
    return str(answer.json().get("error", "")) if answer.headers["content-type"].startswith("application/json") else str(answer.text)


def beside(place: Path) -> dict[str, str]:
    """All that lies beside the workspace."""
    skipped = (place / "workspace", place / "cache")
    files = [path for path in sorted(place.rglob("*")) if path not in skipped and not any(path.is_relative_to(one) for one in skipped)]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else "" for path in files}


BATCH = "aaaaaaaaaaaa"
FINDINGS: dict[str, str] = {}


def with_values(tree: dict[str, Any], known: dict[str, Any]) -> dict[str, Any]:
    return {key: known.get(value, value) if isinstance(value, str) else value for key, value in tree.items()}


def test_every_route_with_values_that_mean_harm(studio: Studio, client: TestClient, asked: list[list[str]]) -> None:
    home, before = studio.grounds.workspace, beside(studio.grounds.workspace.parent)
    values = client.get("/api/train/recipe", params={"name": "demo"}).json()["values"]
    values["data"] |= {"images": "datasets/cats", "subject": "TOK cat"}
    order = studio.put("Look at the cats", ["dataset", "show", "datasets/cats"], "pictures", "cpu")["order"]
    sent, tried, answered = 0, set(), set()
    for route, method in routes(client.app):
        module = str(getattr(route.endpoint, "__module__", __name__))
        for path in sorted({route.path, *(known for known in SEEDS if "{" not in known and "{" in route.path and route.path_regex.match(known))}):
            for tree in trials_of(path, module, with_values(SEEDS.get(path, {}), {"VALUES": values, "ORDER": order})):
                (home / "uploads" / BATCH).mkdir(parents=True, exist_ok=True)
                shutil.copy(home / "pictures" / "0000-seed0.png", home / "uploads" / BATCH / "a.png")
                filled = path.format(id=order, batch=BATCH, wish="earlier", what="export")
                answer = send(client, route, method, filled, tree)
                sent += 1
                tried.add((method, path))
                if answer.status_code < 400:
                    answered.add((method, path))
    if place := os.environ.get("DARKROOM_FUZZ_TELL"):
        told = [f"{sent} requests, {len(asked)} questions, {len(studio.line.orders)} orders; never answered: {sorted(tried - answered)}"]
        Path(place).write_text("\n\n".join([*told, *(f"{key}\n   {more}" for key, more in FINDINGS.items())]), encoding="utf-8")
    assert FINDINGS == {}
    assert beside(home.parent) == before
    orders = [*studio.line.orders, *(Command(argv=tuple(argv)) for argv in asked)]
    bad = [(word, order) for order in orders for word in words_of(order) if escapes(home, word)]
    assert not bad, "\n".join(f"{word}: {order}" for word, order in bad)


def test_names_in_an_address(studio: Studio, client: TestClient) -> None:
    before = beside(studio.grounds.workspace.parent)
    for route, method in routes(client.app):
        for parameter in route.param_convertors:
            for name in (*NAMES, "x" * 5000, "000001-aaaaaa", "cancel", "%00", "..%2f..%2f"):
                path = route.path.replace(f"{{{parameter}}}", quote(name[:5000].encode(errors="surrogatepass"), safe="") or "-")
                send(client, route, method, re.sub(r"\{\w+\}", "export", path), SEEDS.get("/api/runs/export", {}))
    assert FINDINGS == {}
    assert beside(studio.grounds.workspace.parent) == before


def test_a_name_on_the_disk_that_is_no_unicode_is_shown_somehow(studio: Studio, client: TestClient) -> None:
    for folder, name in (("datasets/cats", b"caf\xe9.png"), ("pictures", b"caf\xe9.png"), ("adapters", b"caf\xe9.safetensors"), ("recipes", b"caf\xe9.toml")):
        source = next(path for path in (studio.grounds.workspace / folder).iterdir() if path.suffix == f".{name.decode('latin-1').rpartition('.')[2]}")
        Path(os.fsdecode(os.fsencode(studio.grounds.workspace / folder) + b"/" + name)).write_bytes(source.read_bytes())
    for route, method in routes(client.app):
        if method == "GET" and "{" not in route.path:
            query = {key: value for key, value in SEEDS.get(route.path, {}).items() if isinstance(value, str)}
            assert client.get(route.path, params=query).status_code < 500, route.path


def test_what_comes_back_from_the_trash_comes_back_to_pictures(studio: Studio, client: TestClient) -> None:
    home = studio.grounds.workspace
    for back in (
        f"../../{home.name}/pictures/.trash/0003-seed3.png",
        "../../pictures/.trash/0003-seed3.png",
        "../.trash/0003-seed3.png",
        str(home / "pictures/.trash/0003-seed3.png"),
    ):
        client.post("/api/draw/trash", json={"name": "pictures/0003-seed3.png"})
        client.post("/api/draw/back", json={"back": back})
        client.post("/api/draw/back", json={"back": "0003-seed3.png"})
        assert sorted(path for path in home.parent.rglob("0003-*")) == [home / "pictures" / "0003-seed3.png"], back
