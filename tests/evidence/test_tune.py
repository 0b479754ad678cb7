"""Weights are searched on one set of pictures and judged on another: what is planted is found and holds up, and what was chance does not."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from darkroom.errors import AdapterError, RecipeError, RunError
from darkroom.evidence.tune import Plan, Tune, planned, read_tune, run_tune
from darkroom.evidence.weighing import Outfit
from darkroom.sampling.request import Worn, save_png
from darkroom.values import seed_for

PROMPTS = [f"a cat, number {number}" for number in range(12)]
TREE = {"prompts": PROMPTS, "seeds": [1, 2], "metrics": ["planted"]}


class Planted:
    """Reads from the picture what `drawn` wrote there: what the weights are worth, or chance."""

    name, question, unit, higher_is_better, per, key, prompted = "planted", "?", "points", True, "picture", "planted", False
    blank = False

    def __init__(self, given: Any) -> None:
        pass

    def __call__(self, pictures: Any, prompts: Any) -> list[float]:
        return [float(picture.getpixel((0, 0))[0] * 256 + picture.getpixel((0, 0))[1]) / 100 for picture in pictures]


class Press:
    """Draws what it is told a picture is worth, and counts."""

    def __init__(self) -> None:
        self.count = 0
        self.worth: Any = None

    def __call__(self, work: Any, *_: Any, resume: bool = False, **__: Any) -> None:
        for request, path in work:
            value = int(100 * np.clip(self.worth(request), 0, 600))
            save_png(Image.new("RGB", (8, 8), (value // 256, value % 256, 0)), request, path)
            self.count += 1


@pytest.fixture
def press(monkeypatch: pytest.MonkeyPatch) -> Iterator[Press]:
    from darkroom.metrics import METRICS
    from darkroom.metrics.eye import Eye

    found = Press()
    monkeypatch.setitem(METRICS, "planted", Planted)
    monkeypatch.setattr(Eye, "load", lambda *_, **__: None)
    for module in ("weighing", "drawing"):
        monkeypatch.setattr(f"darkroom.evidence.{module}.draw_files", found)
    yield found


@pytest.fixture
def files(tmp_path: Path) -> list[Worn]:
    for name in ("a", "b"):
        (tmp_path / f"{name}.safetensors").write_bytes(name.encode())
    return [Worn(file=str(tmp_path / f"{name}.safetensors")) for name in ("a", "b")]


def dice(request: Any, *about: str) -> float:
    """Chance that belongs to the picture."""
    return float(np.random.default_rng(seed_for(request.seed, "dice", request.prompt, *about)).normal())


def weights(request: Any) -> list[float]:
    return [worn.weight for worn in request.adapters]


def hill(request: Any) -> float:
    """The top at 0.7 and 0.4; the base is worth less; every prompt and noise has its own level."""
    away = np.array(weights(request)) - [0.7, 0.4] if request.adapters else np.array([1.0, 1.0])
    return 50 + 5 * dice(request) - 20 * float((away**2).sum()) + 0.5 * dice(request, str(weights(request)))


def plan(files: list[Worn], **tune: Any) -> Plan:
    return planned(dict(TREE), Tune(**tune), files, "test")


def test_what_is_planted_is_found_and_holds_up(press: Press, files: list[Worn], tmp_path: Path) -> None:
    press.worth = hill
    result = run_tune(plan(files), tmp_path / "out", "cpu")
    assert np.allclose(result["found"], (0.7, 0.4), atol=0.12) and len(result["points"]) <= 24
    assert result["holds"] is True and result["sentence"].startswith("The found weights hold up: the search saw a gain of +")
    assert result["use"].count("--adapter ") == 2 and f":{result['found'][0]:g} " in result["use"]
    better = {(row["arm"], row["against"]): row["verdict"] for row in result["comparisons"]}
    assert better == {("tuned", "as given"): "better", ("tuned", "base"): "better"}
    assert (tmp_path / "out" / "proof" / "report.html").is_file()
    with Image.open(tmp_path / "out" / "surface.png") as picture:
        assert picture.size[0] > 600


def test_the_proof_shares_no_picture_with_the_search(press: Press, files: list[Worn], tmp_path: Path) -> None:
    press.worth = hill
    result = run_tune(plan(files, budget=8), tmp_path / "out", "cpu")
    proof = json.loads((tmp_path / "out" / "proof" / "trial.json").read_text("utf-8"))
    assert set(result["prompts"]) | set(proof["prompts"]) == set(PROMPTS) and not set(result["prompts"]) & set(proof["prompts"])
    assert proof["seeds"] == [3, 4] and result["seeds"] == [1, 2]


def test_what_was_chance_does_not_hold_up(press: Press, files: list[Worn], tmp_path: Path) -> None:
    """Worth is noise of picture and weights: the search finds a high point by chance. Of four, at most one is said to hold up."""
    held = 0
    for number in range(4):
        press.worth = lambda request, number=number: 100 + 5 * dice(request, str(weights(request)), str(number))
        result = run_tune(plan(files, budget=12), tmp_path / str(number), "cpu")
        held += bool(result["holds"])
        assert max(result["scores"]) > 0 or result["holds"] is None
    assert held <= 1


def test_weights_that_were_right_need_no_proof(press: Press, files: list[Worn], tmp_path: Path) -> None:
    press.worth = lambda request: 100 - 20 * float(((np.array(weights(request)) - 1) ** 2).sum()) + dice(request)
    result = run_tune(plan(files, budget=12), tmp_path / "out", "cpu")
    assert result["found"] == [1.0, 1.0] and result["holds"] is None and "nothing to prove" in result["sentence"]
    assert not (tmp_path / "out" / "proof").exists()


def test_a_search_goes_on_where_it_was_stopped(press: Press, files: list[Worn], tmp_path: Path) -> None:
    press.worth = hill
    whole = run_tune(plan(files, budget=10), tmp_path / "whole", "cpu")
    seen, broken = press.count, Press()
    broken.worth = lambda request: (_ for _ in ()).throw(KeyboardInterrupt) if press.count > seen + 40 else hill(request)
    press.worth = broken.worth
    with pytest.raises(KeyboardInterrupt):
        run_tune(plan(files, budget=10), tmp_path / "out", "cpu")
    press.worth, before = hill, press.count
    found = run_tune(plan(files, budget=10), tmp_path / "out", "cpu")
    assert found["points"] == whole["points"] and found["scores"] == whole["scores"] and found["found"] == whole["found"]
    assert press.count - before < seen, "points that were looked at are not drawn again"


def test_other_adapters_are_looked_at_anew(press: Press, files: list[Worn], tmp_path: Path) -> None:
    press.worth = hill
    run_tune(plan(files, budget=8), tmp_path / "out", "cpu")
    Path(files[0].file).write_bytes(b"another")
    before = press.count
    run_tune(plan(files, budget=8), tmp_path / "out", "cpu")
    assert press.count >= before + 8 * 12, "eight points of six prompts and two seeds"


def test_a_picture_without_a_score_stops_it_and_is_said(press: Press, files: list[Worn], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    press.worth = hill
    monkeypatch.setattr(Planted, "__call__", lambda *_: [float("nan")] * len(_[1]))
    with pytest.raises(RunError, match="not every picture could be scored"):
        run_tune(plan(files), tmp_path / "out", "cpu")


def test_the_file_and_the_options(tmp_path: Path, press: Press, files: list[Worn]) -> None:
    file = tmp_path / "small.toml"
    file.write_text(f"prompts = {PROMPTS}\nseeds = [5]\nmetrics = ['planted']\n[tune]\nbudget = 9\nfresh_prompts = ['one', 'two']\n")
    found = read_tune(file, [f"{files[0].file}:0.8"], ["tune.high=1.5"])
    assert (found.tune.budget, found.tune.high, found.outfit.start, found.outfit.names) == (9, 1.5, (0.8,), ("a",))
    assert found.searched.prompts == tuple(PROMPTS) and found.proof.prompts == ("one", "two") and found.proof.seeds == (6,)
    assert dict(found.goals) == {"planted": 1.0}


@pytest.mark.parametrize(
    ("tree", "tune", "words"),
    [
        ({"arms": []}, {}, "makes its own arms"),
        ({"prompts": PROMPTS[:3]}, {}, "two each at least"),
        ({}, {"fresh_prompts": [PROMPTS[0], "x"]}, "cannot be judged on it"),
        ({}, {"fresh_seeds": [2, 3]}, "share 2"),
        ({}, {"goals": {"plantd": 1.0}}, 'Did you mean "planted"'),
        ({}, {"goals": {"planted": 0.0}}, "counts more than 0"),
        ({}, {"low": 1.0, "high": 0.5}, "low must be below high"),
        ({}, {"low": 0.0, "high": 0.9}, "begins outside"),
        ({}, {"budget": 6}, "7 points are the fewest"),
        ({"clip_prompts": PROMPTS}, {"fresh_prompts": ["x", "y"]}, "fresh_clip_prompts"),
    ],
)
def test_mistakes_are_said(press: Press, files: list[Worn], tree: dict[str, Any], tune: dict[str, Any], words: str) -> None:
    with pytest.raises((RecipeError, ValueError), match=words):
        planned({**TREE, **tree}, Tune.from_tree(tune, "test"), files, "test")
    with pytest.raises(RecipeError, match="an adapter at least"):
        planned(dict(TREE), Tune(), [], "test")


def test_a_missing_adapter_is_said(press: Press, tmp_path: Path) -> None:
    press.worth = hill
    with pytest.raises(AdapterError, match="nowhere"):
        run_tune(planned(dict(TREE), Tune(), [Worn(file="nowhere.safetensors")], "test"), tmp_path / "out", "cpu")


def test_blocks_that_all_weigh_alike_are_the_plain_weight(model: Any, tmp_path: Path) -> None:
    """One adapter in a file with three equal weights draws what it draws when it is worn at that weight, but for rounding."""
    from darkroom.jobs.generate import draw_files
    from darkroom.sampling.request import Request
    from darkroom.sdxl.adapters.places import Catalogue
    from support.adapters import made, saved

    file = saved(tmp_path / "a.safetensors", made(Catalogue.of(model), "LoRA"))
    outfit = Outfit((Worn(file=str(file), weight=0.5),), blocks=True)
    assert outfit.names == ("a input_blocks", "a middle_block", "a output_blocks") and outfit.start == (0.5, 0.5, 0.5)
    request = Request(prompt="a cat", steps=2)
    drawn = {}
    for name, worn in (("plain", (outfit.adapters[0],)), ("same", outfit.at((0.5, 0.5, 0.5), tmp_path / "m.safetensors")), ("none", ())):
        draw_files([(request.model_copy(update={"adapters": worn}), tmp_path / f"{name}.png")], "cpu")
        drawn[name] = np.asarray(Image.open(tmp_path / f"{name}.png"), int)
    other = outfit.at((0.0, 0.5, 1.0), tmp_path / "m.safetensors")
    draw_files([(request.model_copy(update={"adapters": other}), tmp_path / "other.png")], "cpu")
    assert np.abs(drawn["plain"] - drawn["same"]).max() <= 1 < np.abs(drawn["plain"] - drawn["none"]).max()
    assert np.abs(drawn["plain"] - np.asarray(Image.open(tmp_path / "other.png"), int)).max() > 1
