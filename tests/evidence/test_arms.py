"""A trial is refused with a reason, its comparisons are what was asked for, and its noise depends on prompt and seed alone."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from darkroom.errors import RecipeError
from darkroom.evidence.arms import Arm, Trial
from darkroom.evidence.asking import Given, read_trial
from darkroom.sampling.request import Refine

TREE: dict[str, Any] = {
    "arms": [{"name": "base"}, {"name": "empty", "negative": ""}, {"name": "word", "negative": "wrong"}], "prompts": ["a cat", "a dog"], "metrics": ["clip"],
}  # fmt: skip


def read(**changes: Any) -> Trial:
    return Trial.from_tree({**TREE, **changes}, "t.toml")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"prompts": ["a cat"]}, "one prompt only"),
        ({"prompts": ["a cat", "a cat"]}, "a prompt stands twice: a cat"),
        ({"seeds": [1, 1]}, "a seed stands twice: 1"),
        ({"seeds": []}, "seeds"),
        ({"metrics": []}, "metrics"),
        ({"arms": [{"name": "a"}]}, "arms"),
        ({"arms": [{"name": "a"}, {"name": "a", "steps": 3}]}, "names of their own"),
        ({"arms": [{"name": "a b"}, {"name": "a/b", "steps": 3}]}, "would share one"),
        ({"arms": [{"name": "a"}, {"name": "*", "steps": 3}]}, "stands for every arm"),
        ({"arms": [{"name": "a"}, {"name": "b"}]}, '"a" and "b" are the same'),
        ({"arms": [{"name": "a", "differs": ["steps"]}, {"name": "b", "steps": 3}]}, "is the first"),
        ({"arms": [{"name": "a"}, {"name": "b", "steps": 3, "differs": ["step"]}]}, 'Did you mean "steps"'),
        ({"arms": [{"name": "a"}, {"name": "b", "sampler": "eulr"}]}, "eulr"),
        ({"comparisons": [["word", "empt"]]}, 'there is no arm "empt". Did you mean "empty"'),
        ({"comparisons": [["word", "*"]]}, r'there is no arm "\*"'),
        ({"comparisons": [["word", "word"]]}, "with itself"),
        ({"comparisons": [["word", "empty"], ["empty", "word"]]}, "both ways"),
        ({"clip_prompts": ["a cat"]}, "1 for 2 prompts"),
        ({"margins": {"clpi": 1.0}}, '"clpi" is not among the metrics'),
        ({"margins": {"clip": 0.0}}, "above 0"),
        ({"margins": {"clip": math.inf}}, "above 0"),
    ],
)
def test_what_could_show_nothing_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        read(**changes)


def test_comparisons() -> None:
    assert read().contrasts == (("empty", "base"), ("word", "base"))
    assert read(comparisons=[["word", "empty"]]).contrasts == (("word", "empty"),)
    assert read(comparisons=[["*", "empty"], ["word", "empty"]]).contrasts == (("base", "empty"), ("word", "empty"))


def test_each_prompt_has_noise_of_its_own_in_all_arms() -> None:
    trial = read(seeds=[1, 2])
    drawn = {(arm.name, prompt, seed): trial.request(arm, prompt, seed).seed for arm in trial.arms for prompt in trial.prompts for seed in trial.seeds}
    assert len(set(drawn.values())) == 4
    assert all(drawn["base", prompt, seed] == drawn["word", prompt, seed] for prompt, seed in itertools.product(trial.prompts, trial.seeds))
    more = read(seeds=[3, 2, 1], prompts=["a hat", "a dog", "a cat"])
    assert all(more.noise(prompt, seed) == trial.noise(prompt, seed) for prompt, seed in itertools.product(trial.prompts, trial.seeds))
    assert {read(seeds_shared=True).noise(prompt, 7) for prompt in trial.prompts} == {7}


def test_an_arms_own_settings_win_over_the_trials() -> None:
    trial = read(
        steps=9, refiner={}, guidance=3, batch=2, width=128,
        arms=[{"name": "a"}, {"name": "b", "refiner": "none", "guidance": 0, "prefix": "a photo of ", "suffix": ", good", "guidance_rescale": 0.5}],
    )  # fmt: skip
    one, two = (trial.request(arm, "a cat", 1) for arm in trial.arms)
    assert one.refiner == Refine() and two.refiner is None
    assert (one.guidance, two.guidance, one.steps, two.steps, one.batch, two.width) == (3, 0, 9, 9, 2, 128)
    assert two.prompt == "a photo of a cat, good" and two.guidance_rescale == 0.5
    assert trial.arms[1].what(trial) == 'pocket, as it is, prompts written "a photo of …, good", guidance 0.0, guidance rescale 0.5, no refiner'


def test_the_file_reads_back_equal() -> None:
    trial = read(comparisons=[["*", "base"]], margins={"clip": 0.5}, seeds_shared=True)
    assert Trial.from_tree(json.loads(trial.model_dump_json()), "x") == trial


def test_adapters_against_their_base_need_no_file(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("a cat\n\n a dog \n", encoding="utf-8")
    trial, trying = read_trial(Given(adapters=("x.safetensors:0.5@unconditional", "y.safetensors"), prompts=("a hat",), lines=tmp_path / "p.txt", seeds=2))
    assert trying is None and trial.prompts == ("a hat", "a cat", "a dog") and trial.seeds == (1, 2) and trial.metrics == ("clip", "aesthetic")
    assert [arm.name for arm in trial.arms] == ["base", "x 0.5 unconditional", "y 1"]
    assert trial.arms[1].adapters[0].branch == "unconditional"
    with pytest.raises(RecipeError, match="trial needs a TRIAL"):
        read_trial(Given())
    with pytest.raises(RecipeError, match="only trials that ship"):
        read_trial(Given(file="x.toml", places=("a=b",)))
    with pytest.raises(RecipeError, match="cannot be read as text"):
        read_trial(Given(adapters=("x.safetensors",), lines=tmp_path / "none.txt"))


def test_a_shipped_trial_brings_its_pilot() -> None:
    trial, trying = read_trial(Given(file="negative-lora", places=("negative=n.safetensors", "placebo=p.safetensors", "inversion=")))
    assert trying is not None and not set(trial.prompts) & set(trying.prompts)
    assert trial.arms == trying.arms and "inversion" not in {arm.name for arm in trial.arms}
    assert ("target", "zeroed") in trial.contrasts and isinstance(trial.arms[0], Arm)
