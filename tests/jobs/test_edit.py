"""What a person says of pictures: the same rows as the command line gives, nobody's words lost, captions kept by who wrote them."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from transformers import CLIPTokenizer

from darkroom import pocket
from darkroom.data.manifest import Manifest, Row
from darkroom.data.screening import Screening
from darkroom.errors import DatasetError, RecipeError
from darkroom.jobs.edit import HAND, choose, edit, overrule, prefer, write_captions
from darkroom.jobs.overview import View
from darkroom.jobs.rewrite import Rewrite, rewritten
from darkroom.jobs.screen import Overrule, plan, screen
from darkroom.jobs.sheet import Query, Sheets
from darkroom.jobs.tokens import count_tokens

SMALL = Screening().but(["side.smallest=64", "compression.png=0"])

pytestmark = pytest.mark.usefixtures("own_cache")


def drawn(seed: int, side: int = 128) -> Image.Image:
    rng = np.random.default_rng(seed)
    blocks = Image.fromarray(rng.integers(0, 256, (7, 7, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
    return Image.blend(blocks, Image.fromarray(rng.integers(0, 256, (side, side, 3), dtype=np.uint8)), 0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two pictures, three copies of another, and one that is too small."""
    place = tmp_path / "photos"
    place.mkdir()
    for number in (0, 1):
        drawn(number).save(place / f"one{number}.png")
    drawn(2).save(place / "best.png")
    drawn(2).resize((96, 96)).save(place / "less.png")
    shutil.copy(place / "best.png", place / "same [1].png")
    drawn(3, 40).save(place / "tiny.png")
    screen(place, SMALL)
    return place


@pytest.mark.parametrize(
    ("word", "file"),
    [("keep", "tiny.png"), ("reject", "one0.png"), ("keep", "less.png"), ("reject", "best.png"), ("keep", "best.png"), ("reject", "less.png")],
)
def test_a_word_gives_the_rows_and_counts_that_the_command_line_gives(folder: Path, tmp_path: Path, word: str, file: str) -> None:
    twin = tmp_path / "twin"
    shutil.copytree(folder, twin)
    ours = edit(folder, lambda manifest: overrule(manifest, [file], word))  # type: ignore[arg-type]
    theirs = screen(twin, plan(twin), Overrule(**{word: (file,)})).manifest
    assert ours.rows == theirs.rows
    assert ours.notes == theirs.notes
    assert Manifest.open(folder).rows == ours.rows
    ours = edit(folder, lambda manifest: overrule(manifest, [file], "undo"))
    theirs = screen(twin, plan(twin), Overrule(undo=(file,))).manifest
    assert (ours.rows, ours.notes) == (theirs.rows, theirs.notes)


def test_a_name_is_a_name_and_not_a_pattern(folder: Path) -> None:
    done = edit(folder, lambda manifest: overrule(manifest, ["same [1].png"], "keep"))
    assert [row.file for row in done.rows if row.overruled] == ["same [1].png"]
    with pytest.raises(DatasetError, match=r"one\*\.png: is not in .*Look at the list again"):
        edit(folder, lambda manifest: overrule(manifest, ["one*.png"], "keep"))


def test_the_copy_that_is_preferred_stays_and_the_others_go(folder: Path) -> None:
    done = edit(folder, lambda manifest: prefer(manifest, "less.png"))
    assert {row.file: row.kept for row in done.rows if row.cluster} == {"best.png": False, "less.png": True, "same [1].png": False}
    done = edit(folder, lambda manifest: prefer(manifest, "same [1].png"))
    assert {row.file: row.kept for row in done.rows if row.cluster} == {"best.png": False, "less.png": False, "same [1].png": True}
    with pytest.raises(DatasetError, match="has no copies"):
        edit(folder, lambda manifest: prefer(manifest, "one0.png"))


def test_a_plain_folder_gets_its_manifest_with_the_first_word(tmp_path: Path) -> None:
    drawn(0).save(tmp_path / "a.png")
    edit(tmp_path, lambda manifest: overrule(manifest, ["a.png"], "reject"))
    assert [(row.file, row.kept) for row in Manifest.open(tmp_path).rows] == [("a.png", False)]


def test_many_who_write_at_once_lose_nothing(folder: Path) -> None:
    files = [row.file for row in Manifest.open(folder).rows]

    def say(number: int) -> None:
        file = files[number % len(files)]
        edit(folder, lambda manifest: write_captions(manifest, {file: f"{file} {number}"}, by=f"writer{number}").manifest)

    with ThreadPoolExecutor(6) as threads:
        list(threads.map(say, range(18)))
    assert sum(len(row.captions) for row in Manifest.open(folder).rows) == 18


def test_an_edit_beside_a_process_that_writes_too(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from darkroom.jobs.edit import *\n"
        "for n in range(6): edit(Path(sys.argv[1]), lambda m, n=n: write_captions(m, {'one0.png': f'a {n}'}, by=f'other{n}').manifest)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)])
    for number in range(6):
        edit(folder, lambda manifest, number=number: write_captions(manifest, {"one0.png": f"b {number}"}, by=f"me{number}").manifest)  # type: ignore[misc]
    assert other.wait(300) == 0
    assert len(next(row for row in Manifest.open(folder).rows if row.file == "one0.png").captions) == 12


def test_what_was_answered_is_there_after_a_kill(folder: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from darkroom.jobs.edit import *\n"
        "for n in range(1000):\n"
        "    edit(Path(sys.argv[1]), lambda m, n=n: write_captions(m, {'one0.png': f'caption {n}'}).manifest)\n"
        "    print(n, flush=True)"
    )
    other = subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
    assert other.stdout is not None
    for _ in range(7):
        answered = int(other.stdout.readline())
    other.send_signal(signal.SIGKILL)
    answered = max([answered, *map(int, other.stdout.read().split())])
    other.wait(60)
    row = next(row for row in Manifest.open(folder).rows if row.file == "one0.png")
    assert int(row.caption.removeprefix("caption ")) in (answered, answered + 1)


def test_captions_are_kept_by_who_wrote_them(folder: Path) -> None:
    (folder / "one0.txt").write_text("a square")
    done = edit(folder, lambda manifest: write_captions(manifest, {"one0.png": "  a   red\nsquare "}).manifest)
    row = next(row for row in done.rows if row.file == "one0.png")
    assert (dict(row.captions), row.chosen, row.caption) == ({"original": "a square", HAND: "a red square"}, HAND, "a red square")
    row = next(row for row in edit(folder, lambda m: choose(m, ["one0.png"], "original")).rows if row.file == "one0.png")
    assert (row.caption, row.captions[HAND]) == ("a square", "a red square")
    edit(folder, lambda m: choose(m, ["one0.png"], HAND))
    row = next(row for row in edit(folder, lambda m: write_captions(m, {"one0.png": ""}).manifest).rows if row.file == "one0.png")
    assert (dict(row.captions), row.caption) == ({"original": "a square"}, "a square")
    with pytest.raises(DatasetError, match=r'"blip" wrote no caption of it\. Captions are by: original'):
        edit(folder, lambda m: choose(m, ["one0.png"], "blip"))


def test_what_changed_since_it_was_seen_is_not_written_over(folder: Path) -> None:
    edit(folder, lambda manifest: write_captions(manifest, {"one0.png": "by another page"}).manifest)
    written = write_captions(Manifest.open(folder), {"one0.png": "mine", "one1.png": "mine too"}, {"one0.png": "", "one1.png": ""})
    assert written.stale == {"one0.png": "by another page"}
    assert {row.file: row.caption for row in written.manifest.rows if row.caption} == {"one0.png": "by another page", "one1.png": "mine too"}


@pytest.mark.parametrize(
    ("rewrite", "before", "after"),
    [
        ({"how": "set", "text": "TOK cat"}, "anything", "TOK cat"),
        ({"how": "prepend", "text": "TOK,"}, "a cat", "TOK, a cat"),
        ({"how": "append", "text": ", in oil"}, "a cat", "a cat , in oil"),
        ({"how": "append", "text": "in oil"}, "a cat", "a cat in oil"),
        ({"how": "replace", "text": "cat", "other": "dog"}, "a cat on cattle", "a dog on dogtle"),
        ({"how": "replace", "text": "cat", "other": "dog", "whole_words": True}, "a cat on cattle", "a dog on cattle"),
        ({"how": "replace", "text": "CAT", "other": r"\1", "match_case": False}, "a cat.", r"a \1."),
        ({"how": "replace", "text": "a ", "other": ""}, "a cat", "cat"),
        ({"how": "add_tag", "text": "solo"}, "1girl, smile", "1girl, smile, solo"),
        ({"how": "add_tag", "text": "solo", "first": True}, "1girl", "solo, 1girl"),
        ({"how": "add_tag", "text": "Solo"}, "solo,1girl", "solo,1girl"),
        ({"how": "add_tag", "text": "solo"}, "", "solo"),
        ({"how": "remove_tag", "text": "smile"}, "1girl, Smile, smile hat", "1girl, smile hat"),
    ],
)
def test_each_way_to_change_many_captions(rewrite: dict[str, object], before: str, after: str) -> None:
    assert Rewrite.from_tree(rewrite, "captions").of(before) == after


def test_a_rewrite_names_what_it_changes_and_leaves_no_caption_empty() -> None:
    rows = [Row("a.png", captions={"original": "a cat"}), Row("b.png", captions={"original": "cat"}), Row("c.png")]
    found = rewritten(rows, Rewrite(how="replace", text="cat", other=""))
    assert found == {"a.png": ("a cat", "a")}
    with pytest.raises(RecipeError, match="prepend: a text is missing"):
        Rewrite.from_tree({"how": "prepend"}, "captions")


def test_a_sheet_finds_orders_and_counts(folder: Path) -> None:
    sheets = Sheets()
    sheet = sheets.change(folder, lambda m: write_captions(m, {"one0.png": "word " * 80, "one1.png": "a cat"}).manifest)
    view = View("pocket")

    def files(filter: str, **rest: object) -> list[str]:
        return [row.file for row in sheet.rows(Query(filter, **rest), view)]  # type: ignore[arg-type]

    assert files("long") == ["one0.png"]
    assert files("all", text="CAT") == ["one1.png"]
    assert files("reason:duplicate") == ["less.png", "same [1].png"]
    assert files("reason:side") == ["tiny.png"]
    assert files("cluster:best.png", sort="pixels") == ["less.png", "best.png", "same [1].png"]
    assert files("kept", sort="tokens", down=True) == ["one0.png", "one1.png", "best.png"]
    assert files("bucket:64x64") == files("kept")
    assert sheet.counts["filters"] | {"all": 6} == {
        "all": 6, "kept": 3, "rejected": 3, "overruled": 0, "unscreened": 0, "uncaptioned": 4, "long": 1, "held_out": 0, "copies": 3,
    }  # fmt: skip
    assert sheet is sheets.open(folder)
    with pytest.raises(RecipeError, match=r'Did you mean "?kept'):
        files("keptt")


def test_a_sheet_is_read_anew_when_another_wrote_the_manifest(folder: Path) -> None:
    sheets = Sheets()
    before = sheets.open(folder)
    edit(folder, lambda m: overrule(m, ["one0.png"], "reject"))
    assert sheets.open(folder).stamp != before.stamp
    drawn(9).save(folder / "new.png")
    assert "new.png" not in sheets.open(folder).by_file
    assert "new.png" in sheets.open(folder, fresh=True).by_file


def test_tokens_are_counted_as_the_text_encoder_counts_them() -> None:
    oracle = CLIPTokenizer.from_pretrained(pocket.folder() / "tokenizer_2")
    rng, letters = random.Random(0), "abc ABZ 019 '!,.-_()<|>\n\té́ß漢字🐱ي　"
    words = ["<|startoftext|>", "<|endoftext|>", "!", "!!", "cat", "it's", "TOK", "don't", "🐱", "naïve", "1girl", "masterpiece"]
    texts = ["".join(rng.choice(letters) for _ in range(rng.randrange(60))) for _ in range(2000)]
    texts += [rng.choice(("", " ")).join(rng.choice(words) for _ in range(rng.randrange(100))) for _ in range(1000)]
    expected = [len(ids) - 2 for ids in oracle(texts, truncation=False, verbose=False).input_ids]
    found = count_tokens(texts)
    assert [found[text] for text in texts] == expected
