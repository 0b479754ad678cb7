"""Two who change a dataset at once: both changes hold, and where they would not, the later is told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from darkroom.data.manifest import Manifest, Overtaken, Row
from darkroom.data.screening import Screening
from darkroom.data.turn import one_at_a_time
from darkroom.jobs.caption import Captioning, caption
from darkroom.jobs.dataset import Preparation, prepare
from darkroom.jobs.edit import edit, overrule, write_captions
from darkroom.jobs.screen import screen
from darkroom.jobs.watch import Silent

pytestmark = pytest.mark.usefixtures("own_cache")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    place = tmp_path / "photos"
    place.mkdir()
    for number in range(4):
        Image.effect_noise((96, 96), 40 + 20 * number).convert("RGB").save(place / f"{number}.png")
    return place


class Meddler(Silent):
    """Somebody who edits while a job runs: at its first step of that kind."""

    def __init__(self, folder: Path, at: str) -> None:
        self.folder, self.at, self.done = folder, at, False

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == self.at and not self.done:
            self.done = True
            edit(self.folder, lambda manifest: overrule(manifest, ["1.png"], "reject"))
            edit(self.folder, lambda manifest: write_captions(manifest, {"2.png": "by hand"}).manifest)


def rows(folder: Path) -> dict[str, Row]:
    return {row.file: row for row in Manifest.open(folder).rows}


@pytest.mark.parametrize("known", [False, True])
def test_a_screening_keeps_what_was_said_while_it_ran(folder: Path, known: bool) -> None:
    if known:
        edit(folder, lambda manifest: overrule(manifest, ["0.png"], "keep"))
    meddler = Meddler(folder, "screening")
    screen(folder, Screening().but(["side.smallest=64"]), watcher=meddler)
    assert meddler.done
    found = rows(folder)
    assert all(row.verdict for row in found.values())
    assert (found["1.png"].overruled, found["2.png"].caption, found["0.png"].overruled) == ("reject", "by hand", "keep" if known else "")


def test_a_captioning_keeps_what_was_written_while_it_ran(folder: Path) -> None:
    meddler = Meddler(folder, "captioning")
    wanted = Captioning.ask("template", {"subject": "TOK cat"}, choose=False)
    caption(folder, wanted, watcher=meddler)
    assert meddler.done
    found = rows(folder)
    assert {row.captions["template"] for row in found.values()} == {"a photo of TOK cat"}
    assert (found["1.png"].overruled, dict(found["2.png"].captions)) == ("reject", {"hand": "by hand", "template": "a photo of TOK cat"})
    assert found["2.png"].caption == "by hand"


def test_a_preparation_keeps_what_was_said_while_it_ran(folder: Path) -> None:
    meddler = Meddler(folder, "looking")
    prepare(folder, Preparation(held_out="1", focus=True), meddler)
    found = rows(folder)
    assert sum(row.split == "held_out" for row in found.values()) == 1
    assert meddler.done
    assert (found["1.png"].overruled, found["2.png"].caption) == ("reject", "by hand")


def test_rows_that_come_and_go_on_both_sides(folder: Path) -> None:
    start = Manifest(folder, ()).but([Row("a.png", "1"), Row("b.png", "2"), Row("c.png", "3")]).save()
    mine = start.but([row.but(split="train") for row in start.rows if row.file != "a.png"] + [Row("new.png", "4")])
    start.but([row.but(mask="m.png") for row in start.rows if row.file != "b.png"] + [Row("other.png", "5")], theirs="note").save()
    done = mine.but(mine.rows, mine="note").save()
    assert [(row.file, row.split, row.mask) for row in done.rows] == [("c.png", "train", "m.png"), ("new.png", "", ""), ("other.png", "", "")]
    assert (dict(done.notes), Manifest.open(folder).rows) == ({"theirs": "note", "mine": "note"}, done.rows)


def test_the_same_value_changed_twice_is_told(folder: Path) -> None:
    start = Manifest(folder, ()).but([Row("a.png", "1")]).save()
    start.but([Row("a.png", "1", overruled="keep")]).save()
    with pytest.raises(Overtaken, match=r"changed the same in the meantime \(a.png: overruled\).*Run this one again"):
        start.but([Row("a.png", "1", overruled="reject")]).save()
    assert start.but([Row("a.png", "1", overruled="keep", split="train")]).save().rows[0].split == "train"


def test_a_turn_ends_with_whoever_had_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from darkroom.data.turn import one_at_a_time\n"
        "with one_at_a_time(Path(sys.argv[1])): print(1, flush=True); time.sleep(60)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "x")], stdout=subprocess.PIPE)
    assert other.stdout is not None
    other.stdout.readline()
    os.kill(other.pid, signal.SIGKILL)
    other.wait(60)
    began = time.monotonic()
    with one_at_a_time(tmp_path / "x"):
        assert time.monotonic() - began < 30, "it is not waited for"
