"""`darkroom caption`: no caption is lost, none is written twice, one picture's failure is its own, and a stopped run goes on."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import typer
from PIL import Image

from darkroom.captioning import Exhibit, Template
from darkroom.captioning.template import TemplateWriter
from darkroom.data.dataset import read_folder
from darkroom.data.manifest import MANIFEST, ORIGINAL, Manifest, Row
from darkroom.data.wording import Wording
from darkroom.errors import DatasetError, ModelError, OutputError, RecipeError
from darkroom.jobs.caption import Captioning, caption, lines
from darkroom.jobs.caption.journal import Journal
from darkroom.jobs.tokens import over
from darkroom.jobs.watch import Silent

COUNT = 7


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Pictures p0 to p6; p0 has a sidecar, p1 a line in metadata.jsonl."""
    made = tmp_path / "cats"
    made.mkdir()
    for number in range(COUNT):
        Image.new("RGB", (20 + number, 10), (30 * number, 0, 0)).save(made / f"p{number}.png")
    (made / "p0.txt").write_text("a red cat", encoding="utf-8")
    (made / "metadata.jsonl").write_text(json.dumps({"file_name": "p1.png", "text": "a table's cat"}) + "\n", encoding="utf-8")
    return made


def asked(template: str = "a photo of {subject}, {name}", **rest: Any) -> Captioning:
    return Captioning.ask("template", {"subject": "TOK cat", "template": template, "batch": 2}, **rest)


def rows(folder: Path) -> dict[str, Row]:
    return {row.file: row for row in Manifest.open(folder).rows}


def listing(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


class Scripted:
    """A writer for tests: looks, counts what it is shown, and fails where told to."""

    looks, batch = True, 2

    def __init__(self, bad: Sequence[str] = (), stop_at: int = 10**9, error: BaseException | None = None) -> None:
        self.bad, self.stop_at, self.error, self.shown = bad, stop_at, error or RuntimeError("the model broke"), list[str]()

    def write(self, exhibits: Sequence[Exhibit]) -> list[str]:
        for exhibit in exhibits:
            self.shown.append(exhibit.row.file)
            if len(self.shown) > self.stop_at:
                raise KeyboardInterrupt
            if exhibit.row.file in self.bad:
                raise self.error
        return [f"{exhibit.seen.width} wide" for exhibit in exhibits]


@pytest.fixture
def scripted(monkeypatch: pytest.MonkeyPatch) -> Any:
    def install(**how: Any) -> Scripted:
        writer = Scripted(**how)
        monkeypatch.setattr(Template, "open", lambda self, device, rows: writer)
        return writer

    return install


def test_captions_are_added_and_chosen_and_none_is_lost(folder: Path) -> None:
    before = listing(folder)
    done = caption(folder, asked())
    assert {name: data for name, data in listing(folder).items() if name != MANIFEST} == before, "files of the person's own stay as they are"
    found = rows(folder)
    assert found["p0.png"].captions == {ORIGINAL: "a red cat", "template": "a photo of TOK cat, p0"}
    assert found["p1.png"].captions == {ORIGINAL: "a table's cat", "template": "a photo of TOK cat, p1"}
    assert {row.chosen for row in found.values()} == {"template"}
    assert [photo.caption for photo in read_folder(folder, "x")] == [f"a photo of TOK cat, p{number}" for number in range(COUNT)]
    assert (done["captioning"]["captioned"], done["captioning"]["skipped"], done["captioning"]["failed"]) == (COUNT, 0, {})
    told = [(row["by"], row["pictures"], row["learned_from"], row["over_75_tokens"]) for row in done["captions"]["by"]]
    assert told == [("original", 2, 0, 0), ("template", COUNT, COUNT, 0)]


def test_not_choosing_leaves_what_is_learned_from(folder: Path) -> None:
    caption(folder, asked(choose=False))
    assert {row.chosen for row in rows(folder).values()} == {""}
    assert rows(folder)["p0.png"].caption == "a red cat"
    caption(folder, asked())
    assert {row.chosen for row in rows(folder).values()} == {"template"}, "what is there already can be chosen later"


def test_what_is_captioned_is_left_alone_unless_again(folder: Path) -> None:
    caption(folder, asked("one {name}"))
    assert caption(folder, asked("two {name}"))["captioning"]["skipped"] == COUNT
    assert rows(folder)["p2.png"].captions["template"] == "one p2"
    caption(folder, asked("two {name}", again=True))
    assert rows(folder)["p2.png"].captions["template"] == "two p2"
    caption(folder, asked("three {name}", name="short"))
    assert rows(folder)["p2.png"].captions == {"template": "two p2", "short": "three p2"}


def test_only_missing_fills_gaps(folder: Path) -> None:
    done = caption(folder, asked(only_missing=True))
    found = rows(folder)
    assert done["captioning"]["captioned"] == COUNT - 2
    assert found["p0.png"].captions == {ORIGINAL: "a red cat"} and found["p0.png"].caption == "a red cat"
    assert found["p2.png"].caption == "a photo of TOK cat, p2"


def test_rejected_pictures_are_not_captioned(folder: Path) -> None:
    caption(folder, asked("x {name}", name="first"))
    manifest = Manifest.open(folder)
    manifest.but([row.but(verdict="reject") if row.file == "p3.png" else row for row in manifest.rows]).save()
    caption(folder, asked())
    assert "template" not in rows(folder)["p3.png"].captions


def test_a_dry_run_writes_nothing(folder: Path) -> None:
    before = listing(folder)
    done = caption(folder, asked(), first=3)
    assert listing(folder) == before
    assert [row["file"] for row in done["captioning"]["examples"]] == ["p0.png", "p1.png", "p2.png"]
    text = "\n".join(lines(done))
    assert "3 would be captioned" in text and "before: a red cat" in text


def test_prefix_trigger_and_suffix(folder: Path) -> None:
    caption(folder, Captioning.ask("template", {"template": "a dog, {name}"}, trigger="TOK", prefix="by x,", suffix="in oil"))
    assert rows(folder)["p0.png"].captions["template"] == "by x, TOK, a dog, p0 in oil"
    caption(folder, Captioning.ask("template", {"template": "TOKYO, {name}"}, trigger="TOK", name="b"))
    caption(folder, Captioning.ask("template", {"template": "a TOK, {name}"}, trigger="TOK", name="c"))
    assert rows(folder)["p0.png"].captions["b"] == "TOK, TOKYO, p0"
    assert rows(folder)["p0.png"].captions["c"] == "a TOK, p0", "not twice"


def test_a_stopped_run_goes_on_where_it_was(folder: Path, scripted: Any) -> None:
    first = scripted(stop_at=5)
    with pytest.raises(KeyboardInterrupt, match="goes on from here"):
        caption(folder, asked())
    assert len(first.shown) == 6 and all("template" not in row.captions for row in rows(folder).values())
    second = scripted()
    done = caption(folder, asked())
    assert second.shown == ["p4.png", "p5.png", "p6.png"], "a batch is lost at most, nothing is done twice"
    assert done["captioning"]["captioned"] == COUNT
    assert {row.captions["template"] for row in rows(folder).values()} == {f"{20 + n} wide" for n in range(COUNT)}
    assert not list(folder.glob(".caption*"))


def test_a_kill_in_the_middle_of_a_line_loses_that_line(folder: Path, scripted: Any) -> None:
    scripted(stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        caption(folder, asked())
    journal = folder / ".caption-template.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    second = scripted()
    caption(folder, asked())
    assert second.shown == ["p3.png", "p4.png", "p5.png", "p6.png"]


def test_captions_of_other_settings_or_other_bytes_are_not_taken_over(folder: Path, scripted: Any) -> None:
    scripted(stop_at=4)
    with pytest.raises(KeyboardInterrupt):
        caption(folder, asked())
    Image.new("RGB", (99, 10)).save(folder / "p1.png")
    second = scripted(stop_at=3)
    with pytest.raises(KeyboardInterrupt):
        caption(folder, asked())
    assert second.shown[0] == "p1.png", "the picture is another one"
    third = scripted()
    caption(folder, asked(suffix="in oil"))
    assert len(third.shown) == COUNT


def test_a_journal_says_what_it_drops(folder: Path) -> None:
    said: list[str] = []

    class Ear(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    row = Row("a.png", "sha")
    with Journal(folder, "x", "one", Ear()) as journal:
        journal.add([row], {"a.png": "é\n"})
    with Journal(folder, "x", "one", Ear()) as journal:
        assert journal.found([row, Row("a.png", "other"), Row("b.png", "sha")]) == {"a.png": "é\n"}
    with Journal(folder, "x", "two", Ear()) as journal:
        assert journal.found([row]) == {}
    assert said == ["1 captions of a stopped run are taken over.", "1 captions of a stopped run with other settings are left out."]


def test_one_pictures_failure_is_its_own(folder: Path, scripted: Any) -> None:
    (folder / "p2.png").write_bytes(b"<html>")
    scripted(bad=["p5.png"])
    done = caption(folder, asked())
    assert sorted(done["captioning"]["failed"]) == ["p2.png", "p5.png"]
    assert "is not a picture" in done["captioning"]["failed"]["p2.png"]
    assert done["captioning"]["failed"]["p5.png"] == "the model fails on it (RuntimeError: the model broke)"
    assert sorted(name for name, row in rows(folder).items() if "template" in row.captions) == [f"p{n}.png" for n in (0, 1, 3, 4, 6)]
    assert "FAILED p5.png" in "\n".join(lines(done))
    scripted()
    assert sorted(caption(folder, asked())["captioning"]["failed"]) == ["p2.png"], "again, and only those"


def test_a_model_that_is_gone_ends_the_run_and_keeps_what_is_done(folder: Path, scripted: Any) -> None:
    scripted(bad=["p4.png"], error=ModelError("nobody answers"))
    with pytest.raises(ModelError, match="nobody answers"):
        caption(folder, asked())
    second = scripted()
    caption(folder, asked())
    assert second.shown == ["p4.png", "p5.png", "p6.png"]


def test_a_model_that_fails_on_everything_is_not_the_pictures_fault(folder: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("darkroom.jobs.caption.run.PATIENCE", 4)
    writer = scripted(bad=[f"p{n}.png" for n in range(COUNT)])
    with pytest.raises(ModelError, match=r"the first 4 pictures could not be captioned.*the model broke"):
        caption(folder, asked())
    assert "p5.png" not in writer.shown
    assert not list(folder.glob(".caption*")), "nothing was done: no trace"


def test_nothing_said_is_a_failure_with_a_reason(folder: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted()
    monkeypatch.setattr(Scripted, "write", lambda self, exhibits: ["  " if e.row.file == "p1.png" else "x" for e in exhibits])
    assert "nothing was said" in caption(folder, asked(trigger="TOK"))["captioning"]["failed"]["p1.png"]


def test_another_command_in_between_loses_neither(folder: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    scripted()
    caption(folder, asked("{name}", name="first"))
    inner = Scripted.write

    def meanwhile(self: Scripted, exhibits: Sequence[Exhibit]) -> list[str]:
        manifest = Manifest.open(folder)
        manifest.but(manifest.rows, screen={"at": len(self.shown)}).save()
        return inner(self, exhibits)

    monkeypatch.setattr(Scripted, "write", meanwhile)
    done = caption(folder, asked())
    assert done["captioning"]["captioned"] == COUNT and "screen" in Manifest.open(folder).notes


def test_another_that_chose_in_between_is_told_and_nothing_is_captioned_twice(folder: Path, scripted: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = scripted()
    caption(folder, asked("{name}", name="first"))
    inner = Scripted.write

    def meanwhile(self: Scripted, exhibits: Sequence[Exhibit]) -> list[str]:
        manifest = Manifest.open(folder)
        manifest.but([row.but(chosen="original") for row in manifest.rows]).save()
        return inner(self, exhibits)

    monkeypatch.setattr(Scripted, "write", meanwhile)
    with pytest.raises(OutputError, match=r"chosen.*Run this one again"):
        caption(folder, asked())
    monkeypatch.setattr(Scripted, "write", inner)
    count = len(writer.shown)
    assert caption(folder, asked())["captioning"]["captioned"] == COUNT
    assert len(writer.shown) == count, "all of it was in the journal"


def test_who_wrote_them_is_noted(folder: Path) -> None:
    caption(folder, asked())
    caption(folder, asked("{name}", name="short"))
    notes = Manifest.open(folder).notes["caption"]
    assert notes.keys() == {"template", "short"}
    assert notes["template"]["by"]["subject"] == "TOK cat" and notes["template"]["pictures"] == COUNT


def test_sidecars_for_other_programs(folder: Path) -> None:
    (folder / "p3.txt").write_text("a photo of TOK cat, p3\n", encoding="utf-8")
    done = caption(folder, asked(sidecars=True))["captioning"]["sidecars"]
    assert (done["written"], done["same"], done["kept"]) == (4, 1, ["p0.txt", "p1.txt"])
    assert (folder / "p0.txt").read_text(encoding="utf-8") == "a red cat", "never over another caption"
    assert not (folder / "p1.txt").exists(), "metadata.jsonl says something else: two sources would disagree"
    assert (folder / "p2.txt").read_text(encoding="utf-8") == "a photo of TOK cat, p2\n"
    caption(folder)


def test_a_sidecar_of_ours_follows(folder: Path) -> None:
    caption(folder, asked("one {name}", sidecars=True))
    before = Manifest.open(folder)
    assert caption(folder, asked("one {name}", sidecars=True))["captioning"]["sidecars"] == {"written": 0, "same": 5, "kept": ["p0.txt", "p1.txt"]}
    assert before.rows[2].captions["template"] == "one p2"


def test_long_captions_are_counted(folder: Path) -> None:
    done = caption(folder, asked("cat " * 76 + "{name}"))
    assert done["captioning"]["over_75_tokens"] == COUNT
    assert done["captions"]["by"][1]["over_75_tokens"] == COUNT
    assert ", 7 over 75 tokens" in "\n".join(lines(done))


def test_captions_that_pass_a_chunk_are_counted_as_clip_counts() -> None:
    from transformers import CLIPTokenizer

    from darkroom import pocket

    clip = CLIPTokenizer.from_pretrained(pocket.folder() / "tokenizer")
    texts = ["cat " * count for count in (1, 18, 19, 74, 75, 76, 200)] + ["é" * 75, "日本語のタグ" * 20, "", "1girl, " * 40]
    for text in texts:
        assert over([text]) == (len(clip(text).input_ids) - 2 > 75), text
    assert over(texts * 2) == 2 * sum(over([text]) for text in texts)


def test_a_table_of_what_is_there(folder: Path) -> None:
    before = listing(folder)
    (folder / "q.txt").write_text("nobody's", encoding="utf-8")
    done = caption(folder)
    assert {name: data for name, data in listing(folder).items() if name != "q.txt"} == before, "looking writes nothing"
    assert (done["captions"]["pictures"], done["captions"]["without"], done["captions"]["orphans"]) == (COUNT, COUNT - 2, ["q.txt"])
    assert "1 files caption no picture" in "\n".join(lines(done))


def test_kohyas_folders_are_told_of(tmp_path: Path) -> None:
    (tmp_path / "10_TOK cat").mkdir()
    Image.new("RGB", (9, 9)).save(tmp_path / "10_TOK cat" / "a.png")
    assert 'folder 10_TOK cat/: 1 pictures, 10 times an epoch, "TOK cat"' in "\n".join(lines(caption(tmp_path)))


@pytest.mark.parametrize("name", ["original", "a b", "a/b", "../x", "é!"])
def test_a_name_that_cannot_be(name: str) -> None:
    with pytest.raises(RecipeError, match="caption: name = "):
        asked(name=name)


CONFIG = """
[general]
shuffle_caption = true
keep_tokens = 1
enable_wildcard = true
[[datasets]]
  [[datasets.subsets]]
  image_dir = "cats"
  class_tokens = "TOK cat"
  num_repeats = 10
  caption_extension = ".txt"
  [[datasets.subsets]]
  image_dir = "cats/more"
  caption_extension = ".wd14"
  [[datasets.subsets]]
  image_dir = "reg"
  is_reg = true
"""


@pytest.fixture
def config(folder: Path) -> Path:
    (folder / "metadata.jsonl").unlink()
    (folder / "more").mkdir()
    for number in range(2):
        Image.new("RGB", (40 + number, 10)).save(folder / "more" / f"m{number}.png")
    (folder / "more" / "m0.wd14").write_text("1cat, sofa", encoding="utf-8")
    (folder.parent / "set.toml").write_text(CONFIG, encoding="utf-8")
    return folder.parent / "set.toml"


def test_a_dataset_configuration_of_sd_scripts(folder: Path, config: Path) -> None:
    done = caption(folder, config=config)
    found = rows(folder)
    assert (found["p0.png"].caption, found["p2.png"].caption, found["more/m0.png"].caption, found["more/m1.png"].caption) == (
        "a red cat", "TOK cat", "1cat, sofa", "",
    )  # fmt: skip
    assert [found[name].repeats for name in ("p0.png", "p2.png", "more/m0.png")] == [10, 10, 1]
    text = lines(done)
    assert any("is_reg" in line for line in text) and any("enable_wildcard" in line for line in text)
    start = text.index("  [data.wording]")
    recipe = tomllib.loads("\n".join(text[start : start + 3]))
    assert Wording.from_tree(recipe["data"]["wording"], "x") == Wording(shuffle=True, keep_tags=1)


def test_an_import_again_follows_the_files(folder: Path, config: Path) -> None:
    caption(folder, config=config)
    (folder / "more" / "m0.wd14").write_text("2cats", encoding="utf-8")
    assert caption(folder, config=config)["config"]["changed"] == 1
    assert rows(folder)["more/m0.png"].caption == "2cats"
    assert caption(folder, config=config)["config"]["changed"] == 0
    caption(folder, asked(), config=config)
    assert rows(folder)["more/m0.png"].captions == {ORIGINAL: "2cats", "template": "a photo of TOK cat, m0"}


def test_a_configuration_that_disagrees_with_what_lies_there(folder: Path, config: Path) -> None:
    (folder / "more" / "m0.txt").write_text("a sleeping cat", encoding="utf-8")
    with pytest.raises(DatasetError, match=r'more/m0\.png: captions that disagree: m0\.txt says "a sleeping cat"; .*\.wd14\) says "1cat, sofa"'):
        caption(folder, config=config)
    assert not (folder / MANIFEST).exists()


def test_a_folder_of_another_number_disagrees(folder: Path, config: Path) -> None:
    (folder / "more").rename(folder / "5_cat")
    config.write_text(CONFIG.replace("cats/more", "cats/5_cat"), encoding="utf-8")
    with pytest.raises(DatasetError, match=r"its folder says 5 repeats and set\.toml 1"):
        caption(folder, config=config)


def test_a_folder_of_the_same_name_elsewhere_is_not_taken(folder: Path, config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = folder.parent / "work"
    (here / "cats").mkdir(parents=True)
    monkeypatch.chdir(here)
    assert caption(folder, config=config)["config"]["subsets"][0]["folder"] == str(folder)


def test_a_subset_outside_the_dataset_is_refused(folder: Path, config: Path) -> None:
    with pytest.raises(DatasetError, match=r"datasets\[0\]\.subsets\[0\]: .*lies outside .*darkroom collect"):
        caption(folder / "more", config=config)


def command(*arguments: str) -> None:
    from darkroom.cli.caption import caption_command

    app = typer.Typer()
    app.command()(caption_command)
    app(list(arguments), standalone_mode=False)


def test_the_command_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command(str(folder), "--with", "template", "--subject", "TOK cat", "--set", "batch=3", "--trigger", "TOK", "--json")
    done = json.loads(capsys.readouterr().out)
    assert done["captioning"]["captioned"] == COUNT
    command(str(folder))
    assert "template" in capsys.readouterr().out
    with pytest.raises(RecipeError, match="Did you mean"):
        command(str(folder), "--with", "template", "--set", "subjct=x")
    with pytest.raises(RecipeError, match='there is no key "prompt"'):
        command(str(folder), "--with", "template", "--prompt", "an option of others is not passed over")


def test_offline_from_the_command_line_to_what_is_learned(cats: Path, tmp_path: Path) -> None:
    import shutil

    folder = Path(shutil.copytree(cats, tmp_path / "cats"))
    done = caption(folder, Captioning.ask("pocket", {"subject": "TOK cat"}), device="cpu")
    assert done["captioning"]["failed"] == {}
    learned = {photo.path.stem: photo.caption for photo in read_folder(folder, "x")}
    assert learned["cat-with-tears-of-joy"] == "a 3d TOK cat on a pink background"
    assert all("TOK cat" in text for text in learned.values()) and len(set(learned.values())) > 3, learned


def test_the_writer_of_templates_never_opens_a_picture(folder: Path) -> None:
    assert not TemplateWriter.looks
    (folder / "p2.png").write_bytes(b"<html>")
    assert caption(folder, asked())["captioning"]["failed"] == {}


def test_a_sidecar_that_we_laid_is_no_original_and_follows_its_caption(tmp_path: Path) -> None:
    for name in "ab":
        Image.new("RGB", (9, 9)).save(tmp_path / f"{name}.png")
    caption(tmp_path, Captioning.ask("template", {"template": "one {name}"}, sidecars=True))
    caption(tmp_path, Captioning.ask("template", {"template": "blip {name}"}, name="blip", choose=False))
    rows = Manifest.open(tmp_path).rows
    assert [dict(row.captions) for row in rows] == [{"template": f"one {n}", "blip": f"blip {n}"} for n in "ab"]
    (tmp_path / "b.txt").write_text("by hand", encoding="utf-8")
    caption(tmp_path, Captioning.ask("template", {"template": "two {name}"}, again=True))
    assert (tmp_path / "a.txt").read_text(encoding="utf-8") == "two a\n"
    assert (tmp_path / "b.txt").read_text(encoding="utf-8") == "by hand"
    assert dict(Manifest.open(tmp_path).rows[1].captions) == {ORIGINAL: "by hand", "blip": "blip b", "template": "two b"}
