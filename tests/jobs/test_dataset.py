"""A folder of photos is prepared and looked at through the command line, and a training then learns from what was left to learn from."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image, ImageDraw
from typer.testing import CliRunner

from darkroom.cli.dataset import app
from darkroom.data.adopt import adopt
from darkroom.data.batch import Order
from darkroom.data.manifest import Manifest
from darkroom.errors import DatasetError, ModelError, RecipeError
from darkroom.files import sha256_file
from darkroom.jobs.dataset import Preparation, lines, prepare
from darkroom.jobs.dataset_page import render
from darkroom.jobs.overview import View, overview
from darkroom.jobs.overview_text import lines as overview_lines
from darkroom.jobs.tokens import count_tokens


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures of several shapes with an orange thing in each, captions beside most, two of them byte-equal."""
    made = tmp_path / "things"
    made.mkdir()
    dice = np.random.default_rng(0)
    for number in range(11):
        size = [(96, 64), (64, 64), (200, 100), (64, 128), (30, 30)][number % 5]
        picture = Image.fromarray(dice.integers(90, 110, (size[1], size[0], 3), dtype=np.uint8))
        x = size[0] * (0.25 if number % 2 else 0.75)
        ImageDraw.Draw(picture).ellipse((x - 7, size[1] / 2 - 7, x + 7, size[1] / 2 + 7), "orange")
        picture.save(made / f"{number:02d}.png")
        if number % 4:
            (made / f"{number:02d}.txt").write_text(f"TOK thing, orange, {'left' if number % 2 else 'right'}" + ", long" * (50 * (number == 7)))
    shutil.copy(made / "03.png", made / "copy.png")
    return made


def rows(folder: Path) -> dict[str, Any]:
    return {row.file: row for row in Manifest.open(folder).rows}


def test_prepare_splits_without_leak_and_moves_nobody_later(folder: Path) -> None:
    found = prepare(folder, Preparation())
    assert (found["held_out"], found["train"], found["amount"]) == (1, 11, "10%")
    found = prepare(folder, Preparation(held_out="3"))
    assert any("a new split" in word for word in found["words"])
    before = rows(folder)
    assert before["03.png"].split == before["copy.png"].split and sum(row.split == "held_out" for row in before.values()) == 3
    for number in range(6):
        Image.new("RGB", (64, 64), (number, 200, 0)).save(folder / f"new{number}.png")
    held = next(name for name, row in before.items() if row.split == "held_out")
    shutil.copy(folder / held, folder / "again.png")
    prepare(folder, Preparation())
    after = rows(folder)
    assert {name: after[name].split for name in before} == {name: row.split for name, row in before.items()}
    assert after["again.png"].split == "held_out" and all(after[f"new{number}.png"].split == "train" for number in range(6))
    assert {row.split for row in after.values()} == {"train", "held_out"}
    prepare(folder, Preparation(held_out="0"))
    assert {row.split for row in rows(folder).values()} == {""}


def test_prepare_finds_subjects_and_looks_at_none_twice(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = prepare(folder, Preparation(focus=True))
    assert found["focused"] == 12 and "held_out" not in found, "what is not asked for is not done"
    for name, row in rows(folder).items():
        if name != "copy.png":
            assert abs(row.focus[0] - (0.25 if int(name[:2]) % 2 else 0.75)) < 0.15 and abs(row.focus[1] - 0.5) < 0.12, name
    monkeypatch.setattr("darkroom.jobs.dataset.read_picture", lambda path: pytest.fail(f"{path} was looked at again"))
    assert prepare(folder, Preparation(focus=True))["focused"] == 12


def test_masks_from_a_folder_and_the_focus_they_give(folder: Path, tmp_path: Path) -> None:
    masks = tmp_path / "masks"
    masks.mkdir()
    for name, size in (("00", (96, 64)), ("01", (128, 128)), ("nobody", (9, 9))):
        mask = Image.new("L", size)
        mask.paste(255, (0, 0, size[0] // 4, size[1]))
        mask.save(masks / f"{name}.png")
    prepare(folder, Preparation(focus=True))
    found = prepare(folder, Preparation(masks=masks, focus=True))
    assert found["masked"] == 2 and any("nobody.png" in word for word in found["words"])
    kept = rows(folder)
    assert kept["00.png"].mask == "masks/00.png.png" and Image.open(folder / kept["01.png"].mask).size == (64, 64)
    assert kept["00.png"].focus[0] == pytest.approx(0.125, abs=0.01), "the mask says where the subject is, and what was found before gives way"
    assert Image.open(folder / kept["00.png"].mask).mode == "L"
    before = {name: sha256_file(folder / row.mask) for name, row in kept.items() if row.mask}
    prepare(folder, Preparation(masks=folder / "masks"))
    assert {name: sha256_file(folder / row.mask) for name, row in rows(folder).items() if row.mask} == before
    assert len(adopt(folder)[0].rows) == 12, "a mask is no picture of the dataset"


def test_masks_from_transparency(folder: Path) -> None:
    cut = Image.new("RGBA", (64, 64), (200, 100, 0, 255))
    cut.paste((0, 0, 0, 0), (0, 0, 32, 64))
    cut.save(folder / "cut.png")
    assert prepare(folder, Preparation(alpha=True))["masked"] == 1
    Image.new("RGB", (64, 64)).save(folder / "cut.png")
    found = prepare(folder, Preparation(alpha=True))
    assert found["masked"] == 0 and rows(folder)["cut.png"].mask == "" and any("all of every picture" in word for word in found["words"])


def test_all_bad_masks_are_named_at_once(folder: Path, tmp_path: Path) -> None:
    masks = tmp_path / "m"
    masks.mkdir()
    Image.new("L", (96, 64)).save(masks / "00.png")
    Image.new("L", (64, 96), 255).save(masks / "02.png")
    with pytest.raises(DatasetError) as error:
        prepare(folder, Preparation(masks=masks))
    assert "00.png: is black all over" in str(error.value) and "02.png: is 64 x 96" in str(error.value)
    assert not (folder / "manifest.parquet").exists(), "nothing was decided"
    with pytest.raises(RecipeError, match="one mask"):
        prepare(folder, Preparation(masks=masks, alpha=True))


def test_without_opencv_the_rest_is_found(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise RecipeError("finding edges and faces needs OpenCV")

    monkeypatch.setattr("darkroom.sampling.keep.opencv", missing)
    found = prepare(folder, Preparation(focus=True))
    assert found["focused"] == 12 and any("faces were not looked for" in word for word in found["words"])
    assert any("OpenCV" in line for line in lines(found))


def test_a_face_goes_before_what_stands_out(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The finder is played: it sees a face at the top left of every picture that is large enough to look at."""
    seen: list[tuple[int, int]] = []

    def finder(picture: Image.Image) -> list[tuple[int, int, int, int]]:
        seen.append(picture.size)
        return [(0, 0, picture.width // 5, picture.height // 5)]

    monkeypatch.setattr("darkroom.sampling.keep.find_faces", finder)
    prepare(folder, Preparation(focus=True))
    wide = [row for row in rows(folder).values() if row.width == 200]
    assert wide and all(row.focus == pytest.approx((0.1, 0.1)) for row in wide)
    assert all(max(size) in (32, 640) for size in seen) and len(seen) == 1 + len(wide), "32: whether there is a finder at all"


def test_the_overview_counts_what_is_there(folder: Path) -> None:
    prepare(folder, Preparation(held_out="2"))
    (folder / "broken.jpg").write_bytes(b"nothing")
    manifest = adopt(folder)[0]
    changed = [row.but(verdict="reject", reasons=("size: 30 pixels are below 64",)) if row.file == "04.png" else row for row in manifest.rows]
    manifest.but(changed).save()
    facts = overview(folder, View(base="pocket", batch_size=2)).facts
    counts = facts["counts"]
    assert (counts["pictures"], counts["kept"], counts["rejected"], counts["held_out"], counts["unreadable"]) == (13, 12, 1, 2, 1)
    assert facts["rejected_for"] == {"size": 1}
    assert facts["formats"] == {"PNG": 12, "unreadable": 1}
    assert facts["captions"]["from"] == {"*.txt": 8, "none (the recipe's template)": 4}
    assert facts["captions"]["over"] == 1 and facts["captions"]["longest"][0]["file"] == "07.png"
    assert facts["tags"]["most"]["orange"] == 8 and facts["tags"]["most"]["TOK thing"] == 8
    assert facts["copies"]["byte_equal"] == 1 and facts["copies"]["leaking"] == 0
    assert facts["training"]["resolution"] == 64 and facts["training"]["bucket_step"] == 16


def test_the_buckets_are_those_of_a_training(folder: Path) -> None:
    """Against the order of batches that training goes by, and the preflight's own figures."""
    from darkroom.jobs.base import open_base
    from darkroom.train.preflight import plan
    from darkroom.train.recipe import Recipe

    found = overview(folder, View(base="pocket", batch_size=3, crop="subject"))
    from darkroom.data.dataset import read_folder

    recipe = Recipe.from_tree({"data": {"subject": "TOK thing", "batch_size": 3, "crop": "subject"}, "device": "cpu"}, "test")
    facts = plan(recipe, read_folder(folder, recipe.template), open_base("pocket", "cpu", "fp32")).facts
    mine = [(b["width"], b["height"], b["pictures"], [size for size, n in b["batches"].items() for _ in range(n)]) for b in found.facts["training"]["buckets"]]
    assert mine == [(b["width"], b["height"], b["pictures"], b["batches"]) for b in facts["buckets"]]
    order = Order([fit.bucket for fit in found.fits.values()], 3, 99)
    assert found.facts["training"]["batches"] == order.batches_per_epoch


def test_tokens_are_counted_as_the_model_counts_them(model: Any) -> None:
    from darkroom.sdxl.text import count_tokens as counted

    texts = ["", "a cat", "A CAT!!  with   blanks", "masterpiece, 1girl, (red hat:1.2)", "naïve café 猫 🐈", "word " * 200, "<|endoftext|> a"]
    assert count_tokens(texts) == {text: counted(model, text) for text in texts}


def test_small_pictures_are_not_enlarged_in_silence(folder: Path) -> None:
    facts = overview(folder, View(base="pocket", batch_size=2)).facts["training"]
    assert facts["smaller_bucket"] == 2 and facts["too_small"] == 0, "30 x 30 goes to 16 x 16"
    facts = overview(folder, View(base="pocket", bucket_step=64, batch_size=2)).facts["training"]
    assert facts["too_small"] == 2 and facts["small_files"] == ["04.png", "09.png"]
    facts = overview(folder, View(base="pocket", bucket_step=64, batch_size=2, enlarge=True)).facts["training"]
    assert facts["too_small"] == 0 and facts["enlarged"] == 2


def test_no_picture_is_decoded_for_the_figures(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    adopt(folder)[0].save()
    monkeypatch.setattr(Image, "open", lambda *args, **more: pytest.fail("a picture was opened"))
    overview(folder, View())


@pytest.mark.parametrize(
    ("view", "error"),
    [(View(resolution=1000), RecipeError), (View(bucket_step=2048), RecipeError), (View(batch_size=0), RecipeError),
     (View(resolution=-64), RecipeError), (View(base="{here}"), ModelError), (View(base="no-such-folder"), ModelError)],
)  # fmt: skip
def test_views_that_cannot_be(folder: Path, view: View, error: type[Exception]) -> None:
    with pytest.raises(error):
        overview(folder, View(base=view.base.format(here=folder)) if view.base else view)


class Page(HTMLParser):
    """Tags that are open, and whether they close; everything that a page would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.fetched: list[str] = []
        self.pictures = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)
        self.pictures += tag == "img"
        self.fetched += [value or "" for name, value in attrs if name in ("src", "href") and not (value or "").startswith(("data:", "#"))]

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """A line or a cell of a plot: opened and closed."""

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_whole_and_shows_the_crops(folder: Path) -> None:
    shutil.copy(folder / "02.png", folder / "<script>alert(1)<.png")
    (folder / "broken.jpg").write_bytes(b"nothing")
    prepare(folder, Preparation(focus=True))
    text = render(overview(folder, View(base="pocket", batch_size=2, crop="subject")))
    page = Page()
    page.feed(text)
    assert page.open == [] and page.fetched == [] and "<script>" not in text
    assert page.pictures >= 13
    crops = re.findall(r'class="crop" style="left:([\d.]+)%;top:([\d.]+)%;width:([\d.]+)%;height:([\d.]+)%"', text)
    assert len(crops) == 13 and all(float(left) + float(width) <= 100.01 for left, _, width, _ in crops)
    assert "nan" not in text.lower() and len(text) < 2_000_000


def test_an_empty_view_still_renders(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no picture")
    found = overview(tmp_path, View())
    assert "a training" in render(found).lower() and overview_lines(found.facts)


@pytest.fixture
def darkroom() -> typer.Typer:
    root = typer.Typer()
    root.add_typer(app)
    return root


def test_through_the_command_line(folder: Path, tmp_path: Path, darkroom: typer.Typer) -> None:
    def told(*arguments: str) -> dict[str, Any]:
        done = CliRunner().invoke(darkroom, ["dataset", *arguments, "--json"], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert told("prepare", str(folder), "--held-out", "2", "--focus")["held_out"] == 2
    assert told("show", str(folder), "--base", "pocket", "--html", str(tmp_path / "page.html"))["counts"]["train"] == 10
    assert (tmp_path / "page.html").stat().st_size > 20_000
    index = told("shards", str(folder), "--to", str(tmp_path / "s"), "--per-shard", "4")
    assert len(index["shards"]) == 4 and told("unpack", str(tmp_path / "s"), "--to", str(tmp_path / "d"))["hash"] == index["dataset"]
    words = CliRunner().invoke(darkroom, ["dataset", "show", str(folder), "--base", "pocket"]).stdout
    assert "10 to learn from, 2 held out" in words and "64 x 64" in words


def test_a_training_learns_from_what_was_not_held_out(shared: Path, tmp_path: Path) -> None:
    """Photos of a dog: split, made into shards and back, and learned from for two steps on the pocket model."""
    from darkroom.jobs.train import run_training
    from darkroom.train.recipe import load_recipe

    photos = tmp_path / "dog"
    shutil.copytree(shared / "assets" / "dreambooth" / "dog", photos)
    prepare(photos, Preparation(held_out="1", focus=True))
    from darkroom.jobs.shards import shards, unpack

    shards(photos, tmp_path / "s", 2)
    unpack(tmp_path / "s", tmp_path / "back")
    settings = (
        "train.length=2 steps",
        "train.save_every=2 steps",
        "preview.every=9 steps",
        "preview.steps=2",
        "device=cpu",
        "method.rank=2",
        "data.batch_size=2",
    )
    recipe = load_recipe("demo", settings, data={"images": str(tmp_path / "back"), "subject": "TOK dog"})
    facts = run_training(recipe, tmp_path / "run").facts
    assert len(facts["pictures"]) == 4 and len(facts["held_out"]) == 1
    held = [row for row in Manifest.open(photos).rows if row.split == "held_out"]
    assert facts["held_out"][0]["sha256"] == held[0].sha256
    logged = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert all(np.isfinite(entry["validation"]) for entry in logged if "validation" in entry) and any("validation" in entry for entry in logged)
