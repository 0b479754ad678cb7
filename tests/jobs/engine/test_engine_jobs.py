"""Jobs on each engine: what screening and collecting write on a Ray cluster is what they write here."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from darkroom.data.duplicates import find_duplicates
from darkroom.data.fetch import Limits
from darkroom.data.manifest import MANIFEST, Manifest, Row
from darkroom.data.prints import PRINTS, THUMB_BYTES
from darkroom.data.screening import Screening
from darkroom.errors import DatasetError
from darkroom.jobs import bring, duplicates
from darkroom.jobs.bring import lane_of
from darkroom.jobs.collect import Collect, collect
from darkroom.jobs.contact import contact_sheet
from darkroom.jobs.duplicates import spread_duplicates
from darkroom.jobs.engine import Engine, Local
from darkroom.jobs.screen import screen
from darkroom.jobs.watch import Silent
from support.server import Server, png
from support.works import desks, ray_here

SMALL = Screening().but(["side.smallest=16", "compression.png=0"])


@pytest.fixture(scope="module")
def ray_engine() -> Iterator[Engine]:
    with ray_here() as engine:
        yield engine


def photos(folder: Path) -> Path:
    """Sixty pictures: forty of their own, ten half as large, five copies, five that are broken."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(1)
    for number in range(40):
        blocks = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize((96, 96), Image.Resampling.BICUBIC)
        blocks.save(folder / f"{number:02}.png")
        if number < 10:
            blocks.resize((48, 48)).save(folder / f"half{number}.jpg", quality=90)
        if number < 5:
            (folder / f"same{number}.png").write_bytes((folder / f"{number:02}.png").read_bytes())
            (folder / f"torn{number}.png").write_bytes((folder / f"{number:02}.png").read_bytes()[:500])
    return folder


def test_a_screening_is_the_same_bytes_on_each_engine(ray_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The manifest, and the contact sheet. Times of change are made equal first, since the manifest knows them."""
    written = {}
    for name, engine in {"here": Local(1), "processes": Local(2), "ray": ray_engine}.items():
        monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / f"cache-{name}"))
        folder = photos(tmp_path / name / "photos")
        for path in folder.iterdir():
            os.utime(path, ns=(10**18, 10**18))
        done = screen(folder, SMALL, engine=engine)
        assert done.read == 55 and done.facts["reasons"]["duplicate"] == 15, done.facts
        sheet = contact_sheet(done, engine=engine).read_text("utf-8").replace(str(tmp_path / name), "")
        written[name] = ((folder / MANIFEST).read_bytes(), sheet)
        assert not [path for path in folder.iterdir() if path.name.startswith(".")], "nothing lies about"
    assert written["here"] == written["processes"] == written["ray"]


def made(count: int, crowd: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Hashes and thumbnails as pictures have them: about three versions of each, and a crowd of one."""
    rng = np.random.default_rng(seed)
    own = count // 3
    hashes = rng.integers(0, 2**64, (own, PRINTS), dtype=np.uint64)
    bright = rng.integers(0, 256, (own, 8, 8)).repeat(4, 1).repeat(4, 2).reshape(own, -1)
    thumbs = np.concatenate([bright, rng.integers(100, 150, (own, THUMB_BYTES - 1024))], 1)
    who = rng.integers(0, own, count)
    who[:crowd] = 0
    found = hashes[who].copy()
    for _ in range(3):
        found ^= (np.uint64(1) << rng.integers(0, 64, found.shape, dtype=np.uint64)) * (rng.random(found.shape) < 0.5)
    return found, (thumbs[who] + rng.integers(-3, 4, (count, THUMB_BYTES))).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("part", [1000, 100_000])
def test_duplicates_joined_in_parts_are_those_of_one_memory(ray_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    """3,000 pictures in four parts, and in one; some of them left out, as when those that stand for others are compared again."""
    hashes, thumbs = made(3000, 60, 3)
    rows = np.flatnonzero(np.arange(3000) % 7)
    expected = find_duplicates(hashes[rows], thumbs[rows])
    assert len(expected) > 3000, "there is something to find"
    for engine in (Local(1), ray_engine):
        monkeypatch.setattr(duplicates, "PART", part if engine.name == "ray" else min(part, 1000))
        found = spread_duplicates(hashes, thumbs, rows, 1.0, tmp_path, engine)
        assert np.array_equal(found, expected)
    assert not list(tmp_path.iterdir()), "the parts are taken away"


def test_duplicates_of_nothing_are_none(ray_engine: Engine, tmp_path: Path) -> None:
    none = np.zeros(0, np.int64)
    assert spread_duplicates(np.zeros((0, PRINTS), np.uint64), np.zeros((0, THUMB_BYTES), np.uint8), none, 1.0, tmp_path, ray_engine).shape == (0, 2)


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        yield running


def rows_of(to: Path) -> list[Row]:
    """What does not depend on when it was done."""
    return [dataclasses.replace(row, fetched="", changed=0) for row in Manifest.open(to).rows]


def test_a_collection_is_the_same_on_each_engine(ray_engine: Engine, server: Server, tmp_path: Path) -> None:
    """Two hosts, rows that fail each in its own way, one that comes twice, and redirects."""
    other = server.url("").replace("127.0.0.1", "localhost")
    paths = [*(f"/picture/{n}.png" for n in range(60)), "/code/404", "/html", "/cut", "/half", "/circle/a", "/far/3", "/to/file", "/same", "/bomb", "/gif"]
    addresses = [*(server.url(path) for path in paths), *(f"{other}/picture/{n}.png" for n in range(50, 90)), f"{other}/same", server.url("/same"), "ftp://x/y"]
    table = tmp_path / "list.txt"
    table.write_text("\n".join(addresses), encoding="utf-8")
    limits = Limits(retries=0)
    here = collect(Collect(table, tmp_path / "here", limits=limits))
    ray = collect(Collect(table, tmp_path / "ray", limits=limits), engine=ray_engine)
    assert (ray.rows, ray.new, ray.copies, ray.again, ray.failed) == (here.rows, here.new, here.copies, here.again, here.failed)
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "here") and len(rows_of(tmp_path / "ray")) > 90
    assert collect(Collect(table, tmp_path / "ray", limits=limits), engine=ray_engine).before == ray.new, "nothing is fetched twice"


def test_local_files_come_through_workers_too(ray_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = photos(tmp_path / "photos")
    found = {}
    for name, engine in {"here": Local(), "ray": ray_engine}.items():
        done = collect(Collect(folder, tmp_path / name), engine=engine)
        found[name] = (done.new, done.copies, done.failed, rows_of(tmp_path / name))
    assert found["here"] == found["ray"] and found["ray"][:2] == (50, 5)
    (tmp_path / "table.txt").write_text(f"{folder}/00.png\n{folder}/nowhere.png\n")
    assert collect(Collect(tmp_path / "table.txt", tmp_path / "two"), engine=ray_engine).failed == {"no such file": 1}
    hidden = [bring.Brought(bring.errand(0, "a", tmp_path / "part", folder / "00.png", 1), why=bring.Unusable("no such file"))]
    monkeypatch.setattr(ray_engine, "each", lambda *args, **how: iter([dataclasses.replace(hidden[0], errand=next(iter(args[1])))]))
    with pytest.raises(DatasetError, match=r"00\.png: is here, and a worker does not see it"):
        collect(Collect(folder, tmp_path / "blind"), engine=ray_engine)


def test_a_host_is_asked_so_much_at_a_time_by_all_workers_together(ray_engine: Engine, server: Server, tmp_path: Path) -> None:
    server.delay = 0.12
    table = tmp_path / "list.txt"
    table.write_text("\n".join(server.url(f"/picture/{n}.png") for n in range(40)))
    assert collect(Collect(table, tmp_path / "three", limits=Limits(per_host=3)), engine=ray_engine).new == 40
    assert server.most == 3


def test_a_redirect_to_another_workers_host_goes_on_there(ray_engine: Engine, server: Server, tmp_path: Path) -> None:
    """127.0.0.1 leads to localhost, and the two are different workers'."""
    assert lane_of("127.0.0.1", 2) != lane_of("localhost", 2), "or the test tests nothing"
    with Server() as first:
        target = server.url("/picture/5.png").replace("127.0.0.1", "localhost")
        table = tmp_path / "list.txt"
        table.write_text(first.url("/lead/" + target.encode().hex()))
        for name, engine in {"here": Local(), "ray": ray_engine}.items():
            assert collect(Collect(table, tmp_path / name, limits=Limits(retries=0)), engine=engine).new == 1
    assert rows_of(tmp_path / "ray") == rows_of(tmp_path / "here")
    assert (tmp_path / "ray" / rows_of(tmp_path / "ray")[0].file).read_bytes() == png(5)
    assert server.asked == {"/picture/5.png": 2}


def test_a_worker_that_is_killed_while_it_screens_changes_nothing(ray_engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 of an actor from outside, when the first results are there."""

    class Killer(Silent):
        def move(self, what: str, done: int, total: int, note: str = "") -> None:
            if what == "screening" and done and not killed and (actors := desks()):
                killed.append(actors[0].pid)
                actors[0].kill()

    killed, written = list[int](), {}
    for name, engine in {"here": Local(1), "ray": ray_engine}.items():
        monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / f"cache-{name}"))
        folder = photos(tmp_path / name)
        for path in folder.iterdir():
            os.utime(path, ns=(10**18, 10**18))
        screen(folder, SMALL, watcher=Killer() if engine.name == "ray" else Silent(), engine=engine)
        written[name] = (folder / MANIFEST).read_bytes()
    assert killed and written["here"] == written["ray"]
