"""The shipped trial of the negative LoRA: the arms that the question needs, each differing in what it says, on either model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from darkroom.errors import RecipeError
from darkroom.evidence.arms import Trial
from darkroom.evidence.shipped import TRIALS, is_shipped, parse_place, shipped_trial
from darkroom.evidence.things import things
from darkroom.jobs.wrong import BAD, POCKET_BAD

PLACES = {"negative": "bad.safetensors", "placebo": "good.safetensors", "inversion": "wrong.safetensors"}
ARMS = ["empty", "zeroed", "word", "loaded", "target", "unconditional", "minus", "placebo", "list", "inversion"]


def made(world: str = "pocket", pilot: bool = False, **places: str) -> Trial:
    return Trial.from_tree(shipped_trial("negative-lora", world, PLACES | places, pilot), "negative-lora")


@pytest.mark.parametrize("world", ["pocket", "sdxl"])
def test_ten_arms_each_differing_in_what_it_says(world: str) -> None:
    trial = made(world)
    assert [arm.name for arm in trial.arms] == ARMS
    first = trial.request(trial.arms[0], trial.prompts[0], 1)
    for arm in trial.arms[1:]:
        found = {thing.name for thing in things(trial.request(arm, trial.prompts[0], 1), first)}
        assert found == set(arm.differs or ()), arm.name
    assert len({trial.request(arm, trial.prompts[0], 1).model_dump_json() for arm in trial.arms}) == 10


def test_the_arms_are_the_issues() -> None:
    trial = made()
    asked: dict[str, Any] = {arm.name: trial.request(arm, "a cat", 1) for arm in trial.arms}
    told = {name: (request.negative, [(w.file, w.weight, w.branch) for w in request.adapters]) for name, request in asked.items()}
    bad, good = "bad.safetensors", "good.safetensors"
    assert told == {
        "empty": ("", []),
        "zeroed": (None, []),
        "word": ("wrong", []),
        "loaded": ("", [(bad, 1.0, "both")]),
        "target": ("wrong", [(bad, 1.0, "both")]),
        "unconditional": ("wrong", [(bad, 1.0, "unconditional")]),
        "minus": ("", [(bad, -1.0, "both")]),
        "placebo": ("wrong", [(good, 1.0, "both")]),
        "list": (", ".join(POCKET_BAD), []),
        "inversion": ("wrong", []),
    }
    assert [word.file for word in asked["inversion"].embeddings] == ["wrong.safetensors"]
    assert all(request.refiner is not None and request.refiner.model == "pocket-refiner" for request in asked.values())
    assert len({request.seed for request in asked.values()}) == 1, "every arm starts from the same noise"
    assert next(arm.negative for arm in made("sdxl").arms if arm.name == "list") == ", ".join(BAD)


def test_an_arm_that_cannot_be_had_is_left_out_with_its_comparisons() -> None:
    trial = made(inversion="")
    assert [arm.name for arm in trial.arms] == ARMS[:-1]
    assert len(trial.contrasts) == len(made().contrasts) - 1


def test_the_pilot_is_drawn_from_other_prompts() -> None:
    for world in ("pocket", "sdxl"):
        trial, pilot = made(world), made(world, pilot=True)
        assert len(pilot.prompts) >= 8 and not set(trial.prompts) & set(pilot.prompts)
        assert trial.arms == pilot.arms


@pytest.mark.parametrize(
    ("name", "world", "places", "says"),
    [
        ("negative-lor", "pocket", PLACES, 'mean "negative-lora"'),
        ("negative-lora", "pockt", PLACES, 'mean "pocket"'),
        ("negative-lora", "pocket", {}, "--fill negative=FILE"),
        ("negative-lora", "pocket", PLACES | {"placbo": "x"}, 'mean "placebo"'),
    ],
)
def test_what_is_not_there_is_said(name: str, world: str, places: dict[str, str], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        shipped_trial(name, world, places)


def test_places_are_read() -> None:
    assert parse_place(" negative = runs/a=b ") == ("negative", "runs/a=b") and parse_place("inversion=") == ("inversion", "")
    with pytest.raises(RecipeError, match="PLACE=FILE"):
        parse_place("negative")


def test_shipped_trials_are_in_the_package() -> None:
    assert TRIALS.parent == Path(__import__("darkroom").__file__).parent and is_shipped("negative-lora") and not is_shipped("trial.toml")
