"""`darkroom screen` from a folder to its manifest and contact sheet: verdicts with reasons, a person's word, nothing deleted and nothing read twice."""

from __future__ import annotations

import html.parser
import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from darkroom.data.manifest import Manifest, Row
from darkroom.data.screening import Screening
from darkroom.errors import DatasetError, RecipeError
from darkroom.jobs import looks
from darkroom.jobs.contact import contact_sheet
from darkroom.jobs.screen import Overrule, Screened, plan, screen
from darkroom.jobs.screen_text import checks_table, lines

SMALL = Screening().but(["side.smallest=64", "compression.png=0"])


def drawn(seed: int, side: int = 160) -> Image.Image:
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return Image.blend(blocks, Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)), 0.2)


@pytest.fixture(autouse=True)
def memory(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    place = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("DARKROOM_CACHE", str(place))
    return place


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three good pictures, versions of the first, and one of each fault."""
    place = tmp_path / "photos"
    (place / "sub").mkdir(parents=True)
    for number in range(3):
        drawn(number).save(place / f"good{number}.png")
    drawn(0).resize((96, 96)).save(place / "small_version.png")
    drawn(0).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(place / "sub" / "mirrored.jpg", quality=80)
    shutil.copy(place / "good1.png", place / "sub" / "copy.png")
    drawn(3, 40).save(place / "tiny.png")
    drawn(4).filter(ImageFilter.GaussianBlur(6)).save(place / "soft.png")
    Image.new("RGB", (100, 100), "teal").save(place / "plain.png")
    drawn(5).save(place / "moving.gif", save_all=True, append_images=[drawn(6)])
    (place / "half.png").write_bytes((place / "good2.png").read_bytes()[:9000])
    (place / "page.jpg").write_text("<html>not found</html>")
    return place


def by_file(screened: Screened) -> dict[str, Row]:
    return {row.file: row for row in screened.manifest.rows}


def kinds(row: Row) -> set[str]:
    return {reason.partition(": ")[0] for reason in row.reasons}


def test_every_picture_gets_its_verdict_and_stays_where_it_is(folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    found = {file: kinds(row) for file, row in by_file(screen(folder, SMALL)).items()}
    assert found == {
        "good0.png": set(), "good1.png": set(), "good2.png": set(), "small_version.png": {"duplicate"}, "sub/mirrored.jpg": {"duplicate"},
        "sub/copy.png": {"duplicate"}, "tiny.png": {"side"}, "soft.png": {"sharpness"}, "plain.png": {"plain"}, "moving.gif": {"still"},
        "half.png": {"readable"}, "page.jpg": {"readable"},
    }  # fmt: skip
    assert {path: path.read_bytes() for path in before} == before
    assert Manifest.open(folder).rows == screen(folder, SMALL).manifest.rows


def test_the_best_of_each_cluster_is_kept_and_named(folder: Path) -> None:
    rows = by_file(screen(folder, SMALL))
    assert {file for file, row in rows.items() if row.cluster == "good0.png"} == {"good0.png", "small_version.png", "sub/mirrored.jpg"}
    assert rows["sub/copy.png"].cluster == rows["good1.png"].cluster == "good1.png" and rows["good2.png"].cluster == ""
    assert "good0.png" in rows["small_version.png"].reasons[0] and "96 x 96" in rows["small_version.png"].reasons[0]


def test_what_another_check_rejects_stands_for_no_cluster(folder: Path) -> None:
    """The largest version lies in a frame that the crop would cut: the next best is kept, and not none."""
    rows = by_file(screen(folder, SMALL.but(["side.largest=120", "side.larger=reject"])))
    assert rows["small_version.png"].kept and rows["small_version.png"].cluster == "small_version.png" and not rows["good0.png"].kept


def test_a_persons_word_wins_now_and_later(folder: Path) -> None:
    rows = by_file(screen(folder, SMALL, Overrule(keep=("tiny.png", "sub/*.png"), reject=("good0.png",))))
    assert rows["tiny.png"].kept and rows["sub/copy.png"].kept and not rows["good0.png"].kept
    assert rows["sub/mirrored.jpg"].kept != rows["small_version.png"].kept, "the next best takes the place of the one that was rejected"
    rows = by_file(screen(folder, SMALL.but(["side.smallest=50"])))
    assert rows["tiny.png"].kept and rows["tiny.png"].verdict == "reject" and not rows["good0.png"].kept
    rows = by_file(screen(folder, SMALL, Overrule(undo=("*",))))
    assert not rows["tiny.png"].kept and rows["good0.png"].kept


def test_a_pattern_that_names_nothing_is_an_error_before_anything_is_read(folder: Path) -> None:
    with pytest.raises(DatasetError, match=r'--keep goood0\.png: names none of 12 pictures\. Did you mean "good0\.png"'):
        screen(folder, SMALL, Overrule(keep=("goood0.png",)))
    assert not (folder / "manifest.parquet").exists()


def test_only_what_changed_is_read_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = screen(folder, SMALL)
    assert first.read == 11, "12 files, two of them with the same bytes"
    read: list[str] = []
    real = looks.look_at
    monkeypatch.setattr(looks, "look_at", lambda path: (read.append(path.name), real(path))[1])
    again = screen(folder, SMALL.but(["side.smallest=30", "plain.most=1"]))
    assert read == ["half.png", "page.jpg"], "what gave no picture is tried again: a plugin may be there now"
    assert by_file(again)["tiny.png"].kept and by_file(again)["plain.png"].kept
    drawn(9).save(folder / "good2.png")
    assert screen(folder, SMALL).changes.changed == ("good2.png",)
    assert sorted(set(read)) == ["good2.png", "half.png", "page.jpg"]


def test_a_broken_memory_is_begun_anew(folder: Path, memory: Path) -> None:
    expected = screen(folder, SMALL).manifest.rows
    for path in (memory / "looks").iterdir():
        path.write_bytes(b"no database")
    assert screen(folder, SMALL).manifest.rows == expected


def test_limits_hold_on_until_they_are_forgotten(folder: Path) -> None:
    screen(folder, plan(folder, smallest=64, settings=["compression.png=0"]))
    assert plan(folder).tree()["side"]["smallest"] == 64
    assert plan(folder, defaults=True).tree()["side"]["smallest"] == 512
    assert plan(folder, largest=2000).tree()["side"] == {"smallest": 64, "largest": 2000, "larger": "reject"}


def test_what_looks_like_a_given_picture_is_rejected(folder: Path, tmp_path: Path) -> None:
    drawn(0).resize((300, 300)).save(tmp_path / "sign.png")
    rows = by_file(screen(folder, plan(folder, settings=["side.smallest=64", "compression.png=0"], like=[str(tmp_path / "sign.png")])))
    assert {file for file, row in rows.items() if "unwanted" in kinds(row)} == {"good0.png", "small_version.png", "sub/mirrored.jpg"}
    with pytest.raises(RecipeError, match=r"--like .*page\.jpg: is not a picture"):
        screen(folder, plan(folder, like=[str(folder / "page.jpg")]))


def test_text_and_faces_are_measured_on_demand(folder: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not here")
    screened = screen(folder, SMALL.but(also=["text", "faces"]))
    assert by_file(screened)["good0.png"].figures["faces"] == 0 and "text" in by_file(screened)["good0.png"].figures
    assert screen(folder, SMALL.but(also=["text"])).read == 2


@pytest.mark.parametrize("size", [(1, 1), (2, 500), (500, 1), (7, 7), (3, 9)])
def test_no_size_is_too_odd_to_be_measured(tmp_path: Path, size: tuple[int, int]) -> None:
    pytest.importorskip("cv2", reason="OpenCV is not here")
    drawn(1).resize(size).save(tmp_path / "a.png")
    assert screen(tmp_path, Screening().but(also=["text", "faces"])).facts["rejected"] == 1


def test_the_summary_counts_every_picture_once_and_tells_the_way_on(folder: Path) -> None:
    screened = screen(folder, SMALL)
    facts, told = screened.facts, "\n".join(lines(screened))
    assert facts["kept"] + facts["rejected"] == facts["pictures"] == 12
    assert facts["reasons"] == {"duplicate": 3, "readable": 2, "still": 1, "plain": 1, "side": 1, "sharpness": 1}
    assert facts["unknown"]["dpi"] == 10 and facts["clusters"] == 2
    assert told.startswith("3 of 12 pictures kept, 9 rejected") and "--show" in told
    assert json.loads(json.dumps(facts)) == facts
    assert any("sharpness.least=0.45" in line for line in checks_table())


def test_an_empty_folder_and_none_are_told(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "none"):
        with pytest.raises(DatasetError):
            screen(place, SMALL)


class _Page(html.parser.HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.images: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        found = dict(attributes)
        self.images += [found["src"] or ""] if tag == "img" else []
        self.links += [value or "" for name, value in attributes if name in ("href", "src", "action")]
        assert tag != "script"


def test_the_contact_sheet_shows_all_of_it_and_loads_nothing(folder: Path) -> None:
    page = contact_sheet(screen(folder, SMALL, Overrule(keep=("tiny.png",))))
    text = page.read_text(encoding="utf-8")
    found = _Page(text)
    assert page == folder / "screening.html" and len(found.images) >= 10
    assert all(link.startswith("data:") for link in found.links)
    assert all(file in text for file in ("soft.png", "moving.gif", "page.jpg", "sub/mirrored.jpg"))
    assert "kept by you" in text and 'id="only-sharpness"' in text and "sharpness 0." in text


def test_the_contact_sheet_is_bounded_and_says_so(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.jobs.contact.KEPT", 2)
    monkeypatch.setattr("darkroom.jobs.contact.MEMBERS", 2)
    text = contact_sheet(screen(folder, SMALL)).read_text(encoding="utf-8")
    assert "2 of 3 pictures are shown" in text and "3 versions, 2 shown" in text


def test_names_cannot_write_html(tmp_path: Path) -> None:
    drawn(1, 40).save(tmp_path / "<b onclick=x>&.png")
    text = contact_sheet(screen(tmp_path, SMALL)).read_text(encoding="utf-8")
    assert "<b onclick" not in text and "&lt;b onclick=x&gt;&amp;.png" in text


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_what_was_seen_before_it_was_stopped_is_not_read_again(tmp_path: Path, memory: Path) -> None:
    """Killed in the middle, without a chance to say goodbye."""
    place = tmp_path / "many"
    place.mkdir()
    for number in range(150):
        drawn(number, 96).save(place / f"{number:03d}.png")
    slow = (
        "import sys, time, pathlib; from darkroom.jobs import looks, screen; from darkroom.jobs.engine import Local; looks.EVERY = 0.0; real = looks.look_at\n"
        "looks.look_at = lambda path: (time.sleep(0.02 if int(path.stem) < 40 else 0.3), real(path))[1]  # whoever is to kill it may be kept waiting\n"
        "screen.screen(pathlib.Path(sys.argv[1]), screen.Screening(), engine=Local(1))"
    )
    running = subprocess.Popen([sys.executable, "-c", slow, str(place)])
    while running.poll() is None and _remembered(memory) < 20:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL, "it was done before it could be stopped"
    kept = _remembered(memory)
    assert 20 <= kept < 150
    assert screen(place, SMALL).read == 150 - kept


def _remembered(memory: Path) -> int:
    import sqlite3

    try:
        with sqlite3.connect(next((memory / "looks").glob("*.sqlite")), timeout=10) as base:
            return int(base.execute("SELECT count(*) FROM looks").fetchone()[0])
    except (StopIteration, sqlite3.Error):
        return 0
