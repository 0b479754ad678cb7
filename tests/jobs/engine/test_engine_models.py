"""Models held by workers: pictures, scores, captions and latents of a Ray cluster are those of this process, to the byte, also where a worker is killed."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom import pocket
from darkroom.cli.main import run
from darkroom.data.manifest import Manifest
from darkroom.errors import AdapterError, ModelError, RecipeError
from darkroom.files import sha256_file
from darkroom.jobs.caption import Captioning, caption
from darkroom.jobs.encode import encode
from darkroom.jobs.engine import Engine, Local
from darkroom.jobs.generate import draw_files, generate, requests_for
from darkroom.jobs.score import Scoring, score
from darkroom.jobs.score.panel import Panels
from darkroom.jobs.score.store import Store
from darkroom.jobs.watch import Silent
from darkroom.sampling.peek import Previews
from darkroom.sampling.request import Request, Worn, save_png
from support.works import desks, ray_here

METRICS = ("clip", "aesthetic", "sharpness", "diversity", "likeness", "copying", "cmmd")
TABLES = ("scores.csv", "scores.parquet", "summary.csv", "summary.md", "scores.html")


@pytest.fixture(scope="module")
def crew() -> Iterator[Engine]:
    """A Ray of our own with two workers, which all tests share."""
    with ray_here() as found:
        yield found


class Once(Silent):
    """Does something when work has come half-way, once."""

    def __init__(self, what: str, act: Any) -> None:
        self.what, self.act = what, act
        self.done = False

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        if what == self.what and not self.done and 2 * done >= total:
            self.done = True
            self.act()


def kill_a_worker() -> None:
    """kill -9 of one of the actors of this process's own Ray."""
    deadline = time.monotonic() + 120  # one may be on its way yet
    while len(workers := desks()) != 2:
        assert time.monotonic() < deadline, "two workers of ours are there to be killed"
        time.sleep(0.1)
    workers[0].kill()


def drawn(folder: Path, count: int, prompts: int = 3) -> Path:
    """A folder as `darkroom generate` leaves it."""
    folder.mkdir()
    for number in range(count):
        small = np.random.default_rng(number).integers(0, 255, (8, 8, 3), np.uint8)
        picture = Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC)
        save_png(
            picture, Request(prompt=f"a {('cat', 'red apple', 'blue bicycle')[number % prompts]}", seed=number, base="pocket"), folder / f"{number:04d}.png"
        )
    return folder


def asked(prompts: int = 2, count: int = 3) -> list[Request]:
    return requests_for(["a 3d cat on a red background", "a flat car"][:prompts], Request(prompt="", steps=2, base="pocket"), count)


class TestDrawing:
    def test_the_bytes_are_those_of_one_process(self, crew: Engine, tmp_path: Path) -> None:
        alone, together = (generate(asked(), tmp_path / name, "cpu", fill=True, engine=one) for name, one in (("alone", None), ("together", crew)))
        assert [path.name for path in together] == [path.name for path in alone] and len(alone) == 6
        assert [path.read_bytes() for path in together] == [path.read_bytes() for path in alone]

    def test_only_what_is_missing_is_drawn(self, crew: Engine, tmp_path: Path) -> None:
        work = [(request, tmp_path / f"{number}.png") for number, request in enumerate(asked(1))]
        draw_files(work, "cpu", engine=crew)
        before = {path: path.stat().st_mtime_ns for _, path in work}
        data = work[1][1].read_bytes()
        work[1][1].write_bytes(data[:-200])
        draw_files(work, "cpu", resume=True, engine=crew)
        assert [path for _, path in work if path.stat().st_mtime_ns != before[path]] == [work[1][1]] and work[1][1].read_bytes() == data

    def test_a_mistake_is_told_at_its_place(self, crew: Engine, tmp_path: Path) -> None:
        requests = [asked(1, 1)[0], asked(1, 1)[0].model_copy(update={"adapters": (Worn(file=str(tmp_path / "gone.safetensors")),)})]
        told = []
        for name, engine in (("alone", None), ("together", crew)):
            work = [(request, tmp_path / name / f"{number}.png") for number, request in enumerate(requests)]
            with pytest.raises(AdapterError) as caught:
                draw_files(work, "cpu", engine=engine)
            told.append((str(caught.value), [path.is_file() for _, path in work]))
        assert told[0] == told[1] and told[0][1] == [True, False]

    def test_what_is_of_one_process_is_refused(self, crew: Engine, tmp_path: Path) -> None:
        with pytest.raises(RecipeError, match="leave --engine and --workers out"):
            generate(asked(1, 1), tmp_path, "cpu", previews=Previews(1), engine=crew)


class TestScoring:
    def test_every_table_is_that_of_one_process_and_a_kill_changes_nothing(self, crew: Engine, tmp_path: Path) -> None:
        """Among the pictures two are one file, two are one picture in two files, one is broken, and one has no prompt."""
        folder, other = drawn(tmp_path / "mine", 36), drawn(tmp_path / "other", 9)
        shutil.copy(folder / "0003.png", folder / "a twin.png")
        Image.open(folder / "0002.png").save(folder / "same pixels, no prompt.png")
        (folder / "0005.png").write_bytes((folder / "0005.png").read_bytes()[:-900])
        wish = {"reference": pocket.CATS / "held_out", "training": pocket.CATS / "train", "beside": other, "metrics": METRICS, "device": "cpu", "batch": 3}
        stores = [Store(tmp_path / f"{name}.sqlite") for name in "abc"]
        alone = score(Scoring(folder, **wish), tmp_path / "out a", store=stores[0])
        together = score(Scoring(folder, **wish), tmp_path / "out b", store=stores[1], engine=crew)
        watcher = Once("scoring", kill_a_worker)
        survived = score(Scoring(folder, **wish), tmp_path / "out c", watcher, stores[2], crew)
        assert watcher.done and list(alone.side.answers.broken) == ["0005.png"] and alone.side.answers.asked > 200
        for name in TABLES:
            whole = (tmp_path / "out a" / name).read_bytes()
            assert whole == (tmp_path / "out b" / name).read_bytes() == (tmp_path / "out c" / name).read_bytes(), name
        for scored in (together, survived):
            assert scored.side.answers == alone.side.answers and scored.side.sets == alone.side.sets and scored.side.notes == alone.side.notes
        stored = [dict(store.base.execute("SELECT key, value FROM found")) for store in stores]
        assert stored[0] == stored[1] == stored[2], "scores, features and where they are found"

    def test_what_is_known_is_used_alike(self, crew: Engine, tmp_path: Path) -> None:
        """Features that an earlier scoring left, of some of the pictures, in batches of another shape: their bits are used by both, and no others are made."""
        folder, few = drawn(tmp_path / "mine", 12), drawn(tmp_path / "few", 7)
        found = []
        for name, engine in (("alone", None), ("together", crew)):
            store = Store(tmp_path / f"{name}.sqlite")
            score(Scoring(few, ("clip",), device="cpu", batch=2), tmp_path / "first", store=store)
            scored = score(Scoring(folder, ("aesthetic", "diversity"), device="cpu", batch=4), tmp_path / name, store=store, engine=engine)
            found.append((scored.side.answers, (tmp_path / name / "scores.csv").read_bytes()))
        assert found[0] == found[1]

    def test_other_weights_in_a_worker_are_refused(self, crew: Engine, tmp_path: Path) -> None:
        folder = drawn(tmp_path / "mine", 2)
        scoring = Scoring(folder, ("clip",), scorer="pocket", device="cpu")
        with pytest.raises(ModelError, match="other weights or another device"):
            list(crew.each(Panels(scoring, {}, ("of another model",)), [part(folder)]))


def part(folder: Path) -> Any:
    from darkroom.jobs.score.items import find_items
    from darkroom.jobs.score.panel import Part

    items = tuple(find_items(folder, Silent()))
    return Part(items, {"clip": items})


class TestCaptioning:
    def test_captions_journal_and_failures_are_those_of_one_process(self, crew: Engine, tmp_path: Path) -> None:
        """Stopped half-way over the cluster, gone on with here."""
        folder = drawn(tmp_path / "alone", 10)
        (folder / "0004.png").write_bytes(b"no picture")
        for name in ("together", "stopped"):
            shutil.copytree(folder, tmp_path / name)
        wanted = Captioning.ask("pocket", {"batch": 2}, trigger="TOK")
        done = {name: caption(tmp_path / name, wanted, device="cpu", engine=one)["captioning"] for name, one in (("alone", None), ("together", crew))}

        def stop() -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt, match="goes on from here"):
            caption(tmp_path / "stopped", wanted, None, "cpu", Once("captioning", stop), engine=crew)
        assert len((tmp_path / "stopped" / ".caption-pocket.jsonl").read_text().splitlines()) > 4
        done["stopped"] = caption(tmp_path / "stopped", wanted, device="cpu")["captioning"]
        manifests = [Manifest.open(tmp_path / name) for name in done]
        assert all(one.rows == manifests[0].rows for one in manifests) and sum("TOK" in row.caption for row in manifests[0].rows) > 5
        assert sha256_file(tmp_path / "together" / "manifest.parquet") == sha256_file(folder / "manifest.parquet")
        same = ("captioned", "skipped", "over_75_tokens", "examples", "sidecars")
        assert [done["together"][key] for key in same] == [done["alone"][key] for key in same]
        assert list(done["together"]["failed"]) == list(done["alone"]["failed"]) == ["0004.png"]


class TestEncoding:
    def test_a_prepared_training_encodes_nothing_and_learns_the_same(
        self, crew: Engine, cats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:  # fmt: skip
        from darkroom.jobs.train import run_training
        from darkroom.train import cache
        from darkroom.train.recipe import load_recipe

        settings = (f"data.images={cats}", f"validation.pictures={pocket.CATS / 'held_out'}", "data.flip=true", "train.length=3 steps")
        recipe = load_recipe("demo", (*settings, "device=cpu", "method.rank=2", "preview.every=100 steps", "preview.steps=1"), data={"subject": "TOK cat"})
        made: list[str] = []
        for name in ("encoded_photo", "encoded_caption"):
            whole = getattr(cache, name)
            monkeypatch.setattr(cache, name, lambda *given, name=name, whole=whole: made.append(name) or whole(*given))
        found, kept = {}, {}
        for name, engine in (("never", None), ("here", Local()), ("there", crew)):
            monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / name))
            told = encode(recipe, engine=engine) if engine else {}
            made.clear()
            found[name] = sha256_file(run_training(recipe, tmp_path / f"run {name}").product), len(made)
            kept[name] = {path.name: path.read_bytes() for path in (tmp_path / name / "encoded").rglob("*.safetensors")}
            assert not told or (told["pictures"] + told["captions"], told["known"]) == (len(kept[name]), 0)
        assert found["never"][0] == found["here"][0] == found["there"][0] and kept["never"] == kept["here"] == kept["there"]
        assert found["never"][1] == len(kept["never"]) > 10 and found["here"][1] == found["there"][1] == 0
        again = encode(recipe, engine=crew)
        assert (again["pictures"], again["captions"], again["known"]) == (0, 0, len(kept["there"]))

    def test_the_command_takes_what_train_takes(self, cats: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path))
        line = ["dataset", "encode", str(cats), "--recipe", "demo", "--subject", "TOK cat", "--set", "train.length=2 steps", "--set", "device=cpu", "--json"]
        assert run(line) == 0 and json.loads(capsys.readouterr().out)["known"] == 0
        assert run(line) == 0 and json.loads(capsys.readouterr().out)["pictures"] == 0
        assert run([*line, "--engine", "rya"]) == 2 and 'Did you mean \\"ray\\"' in capsys.readouterr().out
