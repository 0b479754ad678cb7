"""Scoring a folder: what is asked is kept, whatever fails or is killed; prompts from every place; two folders side by side, in words. Offline, on pocket."""

from __future__ import annotations

import csv
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from darkroom import pocket
from darkroom.data.picture import read_picture
from darkroom.errors import DatasetError, ModelError, RecipeError
from darkroom.jobs.engine import Local
from darkroom.jobs.score import FILES, PATTERNS, Scored, Scoring, lines, parse_models, patterns, score
from darkroom.jobs.score.beside import partners
from darkroom.jobs.score.items import find_items
from darkroom.jobs.score.page import histogram
from darkroom.jobs.score.store import Store, open_store
from darkroom.jobs.watch import Silent
from darkroom.metrics import METRICS, Given, Sharpness
from darkroom.metrics.memory import stamp
from darkroom.sampling.request import Request, save_png

PROMPTS = ("a cat", "a red apple", "a blue bicycle")


class Told(Silent):
    """A watcher that remembers what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "cache" / "scores.sqlite")


def pictures(folder: Path, prompts: Sequence[str] = PROMPTS, seeds: int = 3, shift: int = 0, base: str = "pocket") -> Path:
    """A folder as `darkroom generate` leaves it: PNGs that carry their request."""
    folder.mkdir(parents=True, exist_ok=True)
    for p, prompt in enumerate(prompts):
        for seed in range(seeds):
            small = np.random.default_rng(100 * p + seed + shift).integers(0, 255, (8, 8, 3), np.uint8)
            save_png(
                Image.fromarray(small).resize((64, 64), Image.Resampling.BICUBIC),
                Request(prompt=prompt, seed=seed, base=base),
                folder / f"{p:03d}-seed{seed}.png",
            )
    return folder


class Counting:
    """A metric that counts whom it was asked about: the mean of a picture's red."""

    name, question, unit, higher_is_better, per, prompted, blank = "counting", "How red is it?", "levels", True, "picture", False, ""
    asked: list[int] = []
    fails: Callable[[float], bool] = staticmethod(lambda value: False)

    def __init__(self, given: Given) -> None:
        self.key = stamp(self.name)

    def __call__(self, several: Sequence[Image.Image], prompts: Sequence[str]) -> list[float]:
        values = [float(np.asarray(one)[..., 0].mean()) for one in several]
        if any(type(self).fails(value) for value in values):
            raise RuntimeError("the scorer broke down")
        type(self).asked += [len(several)]
        return values


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> type[Counting]:
    made = type("Counting", (Counting,), {"asked": []})
    monkeypatch.setitem(METRICS, "counting", made)
    monkeypatch.setattr("darkroom.jobs.score.setup.WITHOUT_EYE", {"counting", "sharpness", "copying"})
    return made


def asked(folder: Path, store: Store, **wish: Any) -> Scored:
    return score(Scoring(folder, **({"metrics": ("counting",)} | wish), device="cpu"), store=store)


def reds(scored: Scored) -> list[float]:
    return [value for value in scored.side.answers.of("counting", scored.side.items) if value is not None]


def test_the_whole_way_on_pocket(tmp_path: Path, store: Store) -> None:
    """Everything that pocket can be asked, and every file that a person may open."""
    folder, base = pictures(tmp_path / "mine"), pictures(tmp_path / "base", shift=7)
    shutil.copy(next((pocket.CATS / "train").glob("*.png")), folder / "again.png")
    wish = {"reference": pocket.CATS / "held_out", "training": pocket.CATS / "train", "base_pictures": base, "beside": base}
    scored = score(Scoring(folder, device="cpu", **wish), store=store)
    names = {metric.name for metric in scored.metrics}
    assert {"clip", "aesthetic", "sharpness", "diversity", "likeness", "copying", "drift"} <= names
    assert scored.copies == ["again.png"] and scored.scorer == "pocket's own scorer"
    assert scored.side.sets["cmmd"]["error"] > 0 and scored.side.sets["cmmd"]["references"] == 3
    rows = pq.read_table(folder / "scores" / "scores.parquet").to_pylist()
    with (folder / "scores" / "scores.csv").open() as file:
        assert [row["file"] for row in csv.DictReader(file)] == [row["file"] for row in rows]
    lone = next(row for row in rows if row["file"] == "again.png")
    assert lone["clip"] is None and lone["copying"] > 99 and lone["prompt"] == ""
    with (folder / "scores" / "summary.csv").open() as file:
        summary = list(csv.DictReader(file))
    assert {row["aggregation"] for row in summary} == {"pooled", "mean of prompts"} and {row["name"] for row in summary} == {"mine", "base"}
    pooled = next(row for row in summary if (row["name"], row["metric"], row["aggregation"]) == ("mine", "clip", "pooled"))
    clip = [row["clip"] for row in rows if row["clip"] is not None]
    assert float(pooled["mean"]) == pytest.approx(np.mean(clip)) and float(pooled["std"]) == pytest.approx(np.std(clip, ddof=1)) and pooled["missing"] == "1"
    assert all((folder / "scores" / file).is_file() for file in FILES)
    page = (folder / "scores" / "scores.html").read_text()
    assert page.count("<section>") == len(names) + 1 and not re.search(r'(src|href)="(?!data:)', page), "it loads nothing"
    assert f'alt="the training picture {next((pocket.CATS / "train").glob("*.png")).name}"' in page
    facts = json.loads((folder / "scores" / "scores.json").read_text())
    assert {move["metric"] for move in facts["comparison"]} == names and facts["folder"]["pictures"] == 10
    told = "\n".join(lines(scored))
    assert (
        "1 of 10 pictures have no prompt that is known, and no clip, diversity, drift: again.png" in told and "are training pictures again: again.png" in told
    )
    again = score(Scoring(folder, device="cpu", **wish), store=store)
    assert again.side.answers.asked == 0 and again.beside is not None and again.beside.answers.asked == 0
    assert again.side.answers.scores == scored.side.answers.scores, "what is remembered is equal to the last bit"
    assert again.side.sets == scored.side.sets


def test_only_what_is_new_is_asked(tmp_path: Path, store: Store, counting: type[Counting]) -> None:
    folder = pictures(tmp_path / "mine")
    first = asked(folder, store)
    assert sum(counting.asked) == 9
    shutil.copy(folder / "000-seed0.png", folder / "a copy under another name.png")
    asked(folder, store)
    assert sum(counting.asked) == 9, "by content, not by name"
    Image.new("RGB", (64, 64), "red").save(folder / "001-seed1.png")
    second = asked(folder, store)
    assert sum(counting.asked) == 10 and second.side.answers.remembered == 9
    assert second.side.answers.scores["counting"]["001-seed1.png"] == 255
    assert {k: v for k, v in second.side.answers.scores["counting"].items() if k in first.side.answers.scores["counting"] and k != "001-seed1.png"} == {
        k: v for k, v in first.side.answers.scores["counting"].items() if k != "001-seed1.png"
    }


def test_another_prompt_or_reference_is_another_question(tmp_path: Path, store: Store) -> None:
    folder = pictures(tmp_path / "mine", seeds=2)
    first = score(Scoring(folder, ("clip", "sharpness", "diversity"), device="cpu"), store=store)
    (tmp_path / "prompts.txt").write_text("something else\n")
    second = score(Scoring(folder, ("clip", "sharpness", "diversity"), tmp_path / "prompts.txt", device="cpu"), store=store)
    assert second.side.answers.remembered == 6 and second.side.answers.asked == 12, "sharpness does not read the prompt"
    assert second.side.answers.scores["clip"] != first.side.answers.scores["clip"]
    references = [pocket.CATS / "held_out", pocket.CATS / "train"]
    found = [score(Scoring(folder, ("likeness",), reference=one, device="cpu"), store=store) for one in references]
    assert found[1].side.answers.asked == 6 and found[0].side.answers.scores != found[1].side.answers.scores


def test_diversity_is_asked_again_when_the_company_changes(tmp_path: Path, store: Store) -> None:
    folder = pictures(tmp_path / "mine")
    score(Scoring(folder, ("diversity",), device="cpu"), store=store)
    (folder / "000-seed0.png").unlink()
    second = score(Scoring(folder, ("diversity",), device="cpu"), store=store)
    assert second.side.answers.remembered == 6 and second.side.answers.asked == 2
    (folder / "000-seed1.png").unlink()
    third = score(Scoring(folder, ("diversity",), device="cpu"), store=store)
    assert third.side.answers.blanks["diversity"] == ["000-seed2.png"]
    assert any("because they are alone with their prompt" in note for note in third.side.notes)


def test_a_scorer_that_fails_half_way_loses_nothing(tmp_path: Path, store: Store, counting: type[Counting]) -> None:
    """It breaks down from the second batch on: what it answered before is kept, other metrics are whole, and the next run asks for the rest alone."""
    folder = pictures(tmp_path / "mine")
    whole = reds(asked(folder, Store(tmp_path / "other.sqlite")))
    late = sorted(whole[4:])
    counting.asked, counting.fails = [], staticmethod(lambda value: value in late)
    scored = asked(folder, store, metrics=("counting", "sharpness"), batch=4)
    assert len(reds(scored)) == 4 and len(scored.side.answers.scores["sharpness"]) == 9
    note = next(note for note in scored.side.notes if note.startswith("counting"))
    assert "was not asked further: 4 of 9 pictures have its score" in note and "RuntimeError: the scorer broke down" in note and "Nothing else is lost" in note
    counting.asked, counting.fails = [], staticmethod(lambda value: False)
    assert reds(asked(folder, store)) == whole and sum(counting.asked) == 5


def test_one_picture_that_a_scorer_cannot_bear_costs_itself_alone(tmp_path: Path, store: Store, counting: type[Counting]) -> None:
    folder = pictures(tmp_path / "mine")
    whole = reds(asked(folder, Store(tmp_path / "other.sqlite")))
    counting.fails = staticmethod(lambda value: value == whole[2])
    scored = asked(folder, store, batch=4)
    assert reds(scored) == whole[:2] + whole[3:]
    assert any("counting failed at 1 of 9 pictures (000-seed2.png" in note for note in scored.side.notes)


def test_a_score_that_is_no_number_is_said_and_not_remembered(tmp_path: Path, store: Store, counting: type[Counting], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = pictures(tmp_path / "mine")
    monkeypatch.setattr(counting, "__call__", lambda self, several, prompts: [math.nan] + [1.0] * (len(several) - 1))
    scored = asked(folder, store)
    assert len(reds(scored)) == 8 and any("it answered nan, which is no number" in note for note in scored.side.notes)
    monkeypatch.setattr(counting, "__call__", Counting.__call__)
    assert len(reds(asked(folder, store))) == 9 and sum(counting.asked) == 1


def test_a_scorer_with_too_few_answers_is_no_scorer(tmp_path: Path, store: Store, counting: type[Counting], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "__call__", lambda self, several, prompts: [])
    scored = asked(pictures(tmp_path / "mine"), store)
    assert reds(scored) == [] and any("it gave 0 scores for 1 pictures" in note for note in scored.side.notes)
    assert scored.side.summaries[0].count == 0 and "no scores" in "\n".join(lines(scored))


def test_a_broken_file_costs_itself_alone(tmp_path: Path, store: Store) -> None:
    folder = pictures(tmp_path / "mine")
    data = (folder / "000-seed0.png").read_bytes()
    (folder / "000-seed0.png").write_bytes(data[:-800])
    for wanted in (("sharpness", "diversity"), ("diversity",)):
        scored = score(Scoring(folder, wanted, device="cpu"), store=Store(tmp_path / f"{len(wanted)}.sqlite"))
        assert len(scored.side.answers.scores["diversity"]) == 8 and list(scored.side.answers.broken) == ["000-seed0.png"]
        assert scored.side.notes[0].startswith("1 of 9 files give no picture and have no score:") and "cannot be read whole" in scored.side.notes[0]


class Deadly(Local):
    """Workers that die of one picture, whoever it is with."""

    deadly, parts = "", 0

    def each(self, work: Any, items: Any, lane: Any = None, ordered: bool = True) -> Any:
        for part in items:
            self.parts += 1
            yield from [work.died(part)] if any(item.file == self.deadly for item in part.items) else work.open()([part])


def test_a_picture_that_kills_its_workers_costs_itself_alone(tmp_path: Path, store: Store) -> None:
    folder, engine = pictures(tmp_path / "mine"), Deadly()
    whole = score(Scoring(folder, ("clip", "sharpness", "diversity"), device="cpu"), store=Store(tmp_path / "other.sqlite")).side.answers
    engine.deadly = "001-seed1.png"
    found = score(Scoring(folder, ("clip", "sharpness", "diversity"), device="cpu", batch=4), store=store, engine=engine).side.answers
    assert engine.parts == 3 + 4 + 3, "its part once more, one by one, then the three prompts"
    assert list(found.broken) == [engine.deadly] and "its worker died of it" in found.broken[engine.deadly] and found.faults == whole.faults
    for metric in ("clip", "sharpness"):
        assert found.scores[metric] == {file: pytest.approx(score) for file, score in whole.scores[metric].items() if file != engine.deadly}
    assert len(found.scores["diversity"]) == 8 and found.asked == 24


SLOW = """
import sys, time
from pathlib import Path
from darkroom.metrics import METRICS, Sharpness
from darkroom.jobs.score import Scoring, score
class Slow(Sharpness):
    name = "slow"
    def __call__(self, several, prompts):
        done = len(open(sys.argv[2]).read().split()) if Path(sys.argv[2]).exists() else 0
        time.sleep(0.15 if done < 6 else 2)  # whoever is to kill it may be kept waiting
        found = super().__call__(several, prompts)
        with open(sys.argv[2], "a") as log: print(len(several), file=log)
        return found
METRICS["slow"] = Slow
import darkroom.jobs.score.setup as setup
setup.WITHOUT_EYE.add("slow")
score(Scoring(Path(sys.argv[1]), ("slow",), batch=2, device="cpu"))
"""


def test_a_kill_loses_at_most_one_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kill -9 while it scores; the next run asks for the rest alone, and the scores are those of an undisturbed run, to the last bit."""
    folder, log = pictures(tmp_path / "mine", prompts=[f"prompt {i}" for i in range(10)]), tmp_path / "log"
    running = subprocess.Popen([sys.executable, "-c", SLOW, str(folder), str(log)], env={**os.environ, "DARKROOM_CACHE": str(tmp_path / "cache")})
    deadline = time.monotonic() + 300
    while (not log.exists() or len(log.read_text().split()) < 5) and running.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(signal.SIGKILL)
    assert running.wait() == -signal.SIGKILL
    before = sum(map(int, log.read_text().split()))
    assert 10 <= before < 30 and not (folder / "scores" / "scores.csv").exists()
    monkeypatch.setitem(METRICS, "slow", type("Slow", (Sharpness,), {"name": "slow"}))
    monkeypatch.setattr("darkroom.jobs.score.setup.WITHOUT_EYE", {"slow"})
    resumed, whole = (asked(folder, Store(tmp_path / cache / "scores.sqlite"), metrics=("slow",), batch=2) for cache in ("cache", "another cache"))
    assert before - 2 <= resumed.side.answers.remembered <= before and resumed.side.answers.asked == 30 - resumed.side.answers.remembered
    assert whole.side.answers.asked == 30 and resumed.side.answers.scores == whole.side.answers.scores


def test_a_broken_cache_is_begun_anew(tmp_path: Path) -> None:
    path, told = tmp_path / "scores.sqlite", Told()
    path.write_bytes(b"this is no database, whatever its name says " * 100)
    made = open_store(told, path)
    made.put({"a": b"1"})
    assert made.get("a") == b"1" and "is damaged" in told.said[0]


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    told = Told()
    made = open_store(told, tmp_path / "file" / "scores.sqlite")
    made.put({"a": b"1"})
    assert made.get("a") == b"1" and "cannot be used" in told.said[0] and "DARKROOM_CACHE" in told.said[0]


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("p.csv", "file,prompt\n000-seed0.png,one\nsub/001-seed0.png,two\n", ["one", "two"]),
        ("p.tsv", "image\tcaption\n000-seed0.png\tone, two\n", ["one, two", "a red apple"]),
        ("p.txt", "one\ntwo\n", ["one", "two"]),
        ("p.txt", "all the same", ["all the same"] * 2),
        ("p.csv", "file,prompt\n000-seed0.png,a (red:1.3) <lora:x:1> cat\n", ["a red cat", "a red apple"]),
    ],
)
def test_prompts_from_a_table(tmp_path: Path, name: str, text: str, expected: list[str]) -> None:
    folder = pictures(tmp_path / "mine", PROMPTS[:2], 1)
    (tmp_path / name).write_text(text)
    assert [item.prompt for item in find_items(folder, Silent(), tmp_path / name)] == expected


def test_prompts_from_requests_files_beside_and_without_the_trigger(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "mine", ("a TOK cat, on (grass)++", "tok cat", "a tokay"), 1)
    Image.new("RGB", (64, 64)).save(folder / "plain.jpg")
    (folder / "plain.txt").write_text("a plain tok, black\n")
    Image.new("RGB", (64, 64)).save(folder / "mute.jpg")
    said = {item.file: item.prompt for item in find_items(folder, Silent(), trigger="TOK")}
    assert list(said.values()) == ["a cat, on grass", "cat", "a tokay", "", "a plain, black"]


def test_pictures_of_subfolders_where_the_folder_holds_none(tmp_path: Path) -> None:
    pictures(tmp_path / "trial" / "pictures" / "base", PROMPTS[:1], 1)
    pictures(tmp_path / "trial" / "pictures" / "adapter", PROMPTS[:1], 1, 3)
    pictures(tmp_path / "trial" / "scores", PROMPTS[:1], 1)
    found = find_items(tmp_path / "trial", Silent(), skip=tmp_path / "trial" / "scores")
    assert [item.file for item in found] == ["pictures/adapter/000-seed0.png", "pictures/base/000-seed0.png"]


@pytest.mark.parametrize(
    ("wish", "error", "words"),
    [
        ({"metrics": ("likenes",)}, RecipeError, 'Did you mean "likeness"'),
        ({"metrics": ("likeness",)}, DatasetError, "--reference"),
        ({"metrics": ("copying",)}, DatasetError, "--training"),
        ({"metrics": ("drift",)}, DatasetError, "--base-pictures"),
        ({"metrics": ("cmmd",)}, DatasetError, "--reference"),
        ({"models": {"clip": "x"}}, RecipeError, '"clip" has no model of its own'),
        ({"models": {"aesthetic": "gone.pth"}, "metrics": ("aesthetic",)}, ModelError, "there is no such file"),
        ({"reference": Path("gone")}, DatasetError, "--reference takes"),
        ({"prompts": Path("gone.csv")}, RecipeError, "there is no such file. --prompts"),
        ({"reference": pocket.CATS / "train", "training": pocket.CATS / "train"}, DatasetError, "was learned from too"),
        ({"scorer": "gone/gone/gone"}, ModelError, "--scorer"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_words(tmp_path: Path, store: Store, wish: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=re.escape(words)):
        score(Scoring(pictures(tmp_path / "mine", PROMPTS[:1], 2), **({"device": "cpu"} | wish)), store=store)


def test_folders_that_are_none_and_tables_that_do_not_fit(tmp_path: Path, store: Store) -> None:
    with pytest.raises(DatasetError, match="there is no such folder"):
        score(Scoring(tmp_path / "gone"), store=store)
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="holds no picture"):
        score(Scoring(tmp_path / "empty"), store=store)
    folder = pictures(tmp_path / "mine", PROMPTS[:2], 2)
    with pytest.raises(RecipeError, match="cannot be compared with itself"):
        score(Scoring(folder, beside=tmp_path / "x" / ".." / "mine"), store=store)
    for name, text, words in (
        ("a.csv", "x,y\n1,2\n", "has the columns x, y"),
        ("b.csv", "file,prompt\nnobody.png,x\n", "names none of the 4 pictures"),
        ("c.txt", "one\ntwo\nthree\n", "3 prompts for 4 pictures"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(RecipeError, match=words):
            find_items(folder, Silent(), tmp_path / name)
    with pytest.raises(RecipeError, match="write METRIC=FILE"):
        parse_models(["dino"])
    assert parse_models(["dino=/a=b", "kid=c"]) == {"dino": "/a=b", "kid": "c"}


def test_folders_are_paired_by_prompt_and_seed(tmp_path: Path, store: Store, counting: type[Counting]) -> None:
    """A planted gain of exactly 3 levels: the paired interval is the shift itself, where an unpaired one drowns in the pictures' own spread."""
    mine, other = tmp_path / "mine", pictures(tmp_path / "other")
    mine.mkdir()
    for path in sorted(other.glob("*.png")):
        p, seed = int(path.name[:3]), int(path.name[8])
        brighter = np.asarray(read_picture(path)).astype(int) // 2 + 3
        save_png(Image.fromarray(brighter.astype(np.uint8)), Request(prompt=PROMPTS[p], seed=seed, base="pocket"), mine / path.name)
        save_png(Image.fromarray((np.asarray(read_picture(path)) // 2).astype(np.uint8)), Request(prompt=PROMPTS[p], seed=seed, base="pocket"), path)
    move = asked(mine, store, beside=other).moves[0]
    assert (move.pairs, move.way) == (9, "up") and (move.mean, move.low, move.high) == (pytest.approx(3),) * 3
    for path in mine.glob("*.png"):
        read_picture(path).save(path)  # nobody knows prompts and seeds now
    loose = asked(mine, store, beside=other).moves[0]
    assert loose.pairs == 0 and loose.mean == pytest.approx(3) and loose.way == "level" and "not paired" in loose.sentence


def test_welchs_interval_is_scipys_own_formula(tmp_path: Path, store: Store, counting: type[Counting]) -> None:
    from scipy.stats import t

    one, two = pictures(tmp_path / "one", ["a"], 6), pictures(tmp_path / "two", ["a"], 5, shift=50)
    for path in [*one.glob("*.png"), *two.glob("*.png")]:
        read_picture(path).save(path)
    scored = asked(one, store, beside=two)
    assert scored.beside is not None
    x, y = np.array(reds(scored)), np.array(list(scored.beside.answers.scores["counting"].values()))
    a, b = x.var(ddof=1) / len(x), y.var(ddof=1) / len(y)
    half = t.ppf(0.975, (a + b) ** 2 / (a**2 / (len(x) - 1) + b**2 / (len(y) - 1))) * np.sqrt(a + b)
    move = scored.moves[0]
    assert (move.low, move.high) == (pytest.approx(x.mean() - y.mean() - half), pytest.approx(x.mean() - y.mean() + half))


def test_scores_without_any_spread_are_not_compared(tmp_path: Path, store: Store, counting: type[Counting], monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = pictures(tmp_path / "one"), pictures(tmp_path / "two", shift=50)
    for path in two.glob("*.png"):
        read_picture(path).save(path)
    monkeypatch.setattr(counting, "__call__", lambda self, several, prompts: [1.0] * len(several))
    scored = asked(one, store, beside=two)
    assert scored.moves[0].way == "level" and "without any spread" in scored.moves[0].sentence and scored.patterns == []


def test_known_patterns_are_said_and_others_are_not() -> None:
    assert "memorising" in patterns({"likeness": "up", "copying": "up", "clip": "level"})[0]
    assert "the trigger took over" in patterns({"likeness": "up", "diversity": "down", "clip": "down"})[0]
    assert "memorising" in patterns({"likeness": "level", "dino": "up", "copying": "up"})[0], "any of the likenesses"
    assert patterns({"likeness": "up", "imagenet": "down", "copying": "up"}) == [], "they contradict each other"
    assert patterns({"likeness": "up"}) == [] and patterns({"clip": "up", "aesthetic": "up"}) == [], "what was not measured says nothing"
    assert patterns({}) == []
    for wanted, words in PATTERNS:
        assert words in patterns({name: ways[0] for name, ways in wanted.items()}) and set(wanted) <= set(METRICS)


def test_partners_are_told_apart_or_there_are_none(tmp_path: Path) -> None:
    one, two = (find_items(pictures(tmp_path / name, PROMPTS[:2], 2), Silent()) for name in "ab")
    assert len(partners(one, two)) == 4
    assert partners(one, [*two, *two]) == set(), "each stands twice"
    assert partners(one, two[:1]) == set(), "one prompt"
    assert partners(one, []) == set()


def test_the_histogram_counts_every_score() -> None:
    found = str(histogram([1, 1, 1, 2, 3, 9], []))
    assert [float(high) for high in re.findall(r'class="bar"[^/]*height="([\d.]+)"', found)] == [120, 30, 30], "4, 1 and 1 of 6"
    assert str(histogram([], [])) == "" and "outline" in str(histogram([1.0], [2.0])) and "nan" not in str(histogram([5.0], []))


def test_sharpness_and_copying_need_no_clip(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Photos of nobody knows which base, offline: what looks through no CLIP asks for none."""
    monkeypatch.setattr("darkroom.metrics.eye.Eye.load", lambda *args: pytest.fail("a CLIP was loaded"))
    folder = pictures(tmp_path / "mine", base="stabilityai/sdxl")
    scored = score(Scoring(folder, ("sharpness", "copying"), training=pocket.CATS / "train", device="cpu"), store=store)
    assert len(scored.side.answers.scores["copying"]) == 9 and scored.scorer == "no CLIP"
    assert isinstance(scored.metrics[0], Sharpness)
