"""In what two arms differ is told from what is drawn, and an effect is never put down to one of several things."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from darkroom.errors import AdapterError, RecipeError
from darkroom.evidence.arms import Arm, Trial
from darkroom.evidence.drawing import contrasts
from darkroom.evidence.things import THINGS, sentence, things
from darkroom.sampling.request import Refine, Request, Word, Worn

PLAIN = Request(prompt="a cat")
BAD = Worn(file="bad.safetensors", sha256="b")
GOOD = Worn(file="good.safetensors", sha256="g")


def but(request: Request = PLAIN, **changes: Any) -> Request:
    return request.model_copy(update=changes)


@pytest.mark.parametrize(
    ("arm", "other", "names"),
    [
        (PLAIN, PLAIN, ""),
        (but(negative=""), PLAIN, "encoding"),
        (but(negative="wrong"), but(negative=""), "negative"),
        (but(negative="wrong"), PLAIN, "negative encoding"),
        (but(negative="wrong", adapters=(BAD,)), PLAIN, "adapters negative encoding"),  # the essay's target and baseline
        (but(adapters=(BAD,)), PLAIN, "adapters"),
        (but(adapters=(BAD,)), but(adapters=(GOOD,)), "adapters"),
        (but(adapters=(BAD.model_copy(update={"weight": -1.0}),)), but(adapters=(BAD,)), "weight"),
        (but(adapters=(BAD.model_copy(update={"branch": "unconditional"}),)), but(adapters=(BAD,)), "branch"),
        (but(adapters=(BAD.model_copy(update={"weight": 0.5, "branch": "conditional"}),)), but(adapters=(GOOD,)), "adapters weight branch"),
        (but(adapters=(BAD.model_copy(update={"text_weight": 1.0}),)), but(adapters=(BAD,)), ""),  # 1 is what the text encoders wore anyway
        (but(adapters=(BAD.model_copy(update={"file": "elsewhere/copy.safetensors"}),)), but(adapters=(BAD,)), ""),
        (but(adapters=(BAD, GOOD)), but(adapters=(GOOD, BAD)), ""),
        (but(embeddings=(Word(file="wrong.pt"),)), PLAIN, "embeddings"),
        (but(prompt="a photo of a cat"), PLAIN, "prompt"),
        (but(guidance=8.0, guidance_rescale=0.7, steps=5, sampler="ddim", clip_skip=1), PLAIN, "guidance guidance_rescale steps sampler clip_skip"),
        (but(refiner=Refine()), PLAIN, "refiner"),
        (but(refiner=Refine(fraction=0.7)), but(refiner=Refine()), "refiner"),
        (but(base="other"), PLAIN, "base"),
    ],
)
def test_everything_that_differs_is_a_thing(arm: Request, other: Request, names: str) -> None:
    assert [thing.name for thing in things(arm, other)] == names.split()
    assert [thing.name for thing in things(other, arm)] == names.split()
    assert set(names.split()) <= set(THINGS)


def test_more_than_one_thing_is_no_cause() -> None:
    told = sentence("target", "base", things(but(negative="wrong", adapters=(BAD,)), PLAIN))
    assert told.startswith(
        '"target" differs from "base" in 3 things: adapters (with bad.safetensors at 1), words of the negative prompt ("wrong" instead of none)'
    )
    assert told.endswith("encoding of the negative prompt (encoded instead of zeroed); the effect cannot be put down to one of them.")
    one = sentence("cfg", "base", things(but(guidance=8.0), PLAIN))
    assert one == '"cfg" differs from "base" in one thing: guidance (8 instead of 5).'


def trial(tmp_path: Path, *arms: Arm, **changes: Any) -> Trial:
    return Trial(**{"arms": (Arm(name="base"), *arms), "prompts": ("a cat", "a dog"), "metrics": ("clip",), **changes})


def worn(path: Path, content: bytes) -> tuple[Worn, ...]:
    path.write_bytes(content)
    return (Worn(file=str(path)),)


def test_an_arm_that_differs_in_more_than_it_says_is_refused(tmp_path: Path) -> None:
    arm = Arm(name="word", negative="wrong", differs=("negative",))
    with pytest.raises(RecipeError, match=r'"word" says that it differs from "base" in negative, but it differs in encoding \(encoded instead of zeroed\) too'):
        contrasts(trial(tmp_path, arm))
    honest = arm.model_copy(update={"differs": ("negative", "encoding")})
    assert [thing.name for thing in contrasts(trial(tmp_path, honest))["word", "base"].things] == ["negative", "encoding"]
    with pytest.raises(RecipeError, match=r"says that it differs from .* in guidance, but there the two are equal"):
        contrasts(trial(tmp_path, honest.model_copy(update={"differs": ("negative", "encoding", "guidance")})))


def test_tags_and_presets_are_resolved_before_arms_are_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    worn(tmp_path / "bad.safetensors", b"x")
    monkeypatch.setenv("DARKROOM_ADAPTERS", str(tmp_path))
    found = contrasts(trial(tmp_path, Arm(name="tagged", negative="@safe, <lora:bad:0.5>")))["tagged", "base"]
    assert [thing.name for thing in found.things] == ["adapters", "negative", "encoding"]
    assert "bad.safetensors at 0.5 in the unconditional branch alone" in found.sentence and '"nsfw, nude, censored' in found.sentence


def test_equal_files_under_two_names_are_no_difference(tmp_path: Path) -> None:
    one, two = worn(tmp_path / "a.safetensors", b"same"), worn(tmp_path / "b.safetensors", b"same")
    with pytest.raises(RecipeError, match="draw the same pictures: every setting is equal, and the files that they wear are equal byte for byte"):
        contrasts(trial(tmp_path, Arm(name="one", adapters=one), Arm(name="two", adapters=two), comparisons=(("one", "two"),)))


def test_a_missing_file_is_said_before_anything_is_drawn(tmp_path: Path) -> None:
    with pytest.raises(AdapterError, match=r'gone.safetensors: arm "target" wears it, and there is no such file'):
        contrasts(trial(tmp_path, Arm(name="target", adapters=(Worn(file=str(tmp_path / "gone.safetensors")),))))


def test_comparisons_that_are_asked_for_are_told_apart_too(tmp_path: Path) -> None:
    asked = trial(tmp_path, Arm(name="empty", negative=""), Arm(name="word", negative="wrong"), comparisons=(("word", "empty"),))
    found = contrasts(asked)
    assert [len(found[pair].things) for pair in (("word", "empty"), ("word", "base"))] == [1, 2]
