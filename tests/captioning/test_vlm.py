"""Any vision-language model of transformers: the question is not part of the answer, in batches either."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.captioning import Exhibit, Vlm
from darkroom.captioning.vlm import behind, unquoted
from darkroom.data.manifest import Row
from support.captioners import write_llava


def shown(count: int) -> list[Exhibit]:
    return [Exhibit(Row(f"{n}.png"), Image.fromarray(np.random.default_rng(n).integers(0, 256, (20 + n, 30, 3), dtype=np.uint8))) for n in range(count)]


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    model = write_llava(tmp_path_factory.mktemp("llava"))
    return Vlm(model=str(model), prompt="what is this", longest=8).open("cpu", ()).write(shown(4))


def test_the_question_is_not_part_of_the_answer(told: list[str]) -> None:
    assert not any("what is this" in text or text.startswith("USER") for text in told)
    assert len(set(told)) > 1
    assert all(len(text.split()) <= 8 for text in told)


def test_a_model_without_a_chat_template_is_asked_in_plain_text(told: list[str], tmp_path: Path) -> None:
    model = write_llava(tmp_path / "plain", template=None)
    plain = Vlm(model=str(model), prompt="USER : <image> what is this ASSISTANT", longest=8).open("cpu", ()).write(shown(4))
    assert plain == told, "the template says the same"


def test_the_prompt_is_asked(told: list[str], tmp_path: Path) -> None:
    model = write_llava(tmp_path / "other")
    assert Vlm(model=str(model), prompt="a red dog", longest=8).open("cpu", ()).write(shown(4)) != told


def test_models_that_say_the_question_again_and_models_that_do_not() -> None:
    asked = torch.tensor([[1, 2, 3]])
    assert behind(asked, torch.tensor([[1, 2, 3, 9, 8]])).tolist() == [[9, 8]]
    assert behind(asked, torch.tensor([[7, 9, 8, 4]])).tolist() == [[7, 9, 8, 4]]


@pytest.mark.parametrize(
    ("said", "line"), [('"A cat."\n', "A cat."), ("A  cat\non a mat", "A cat on a mat"), ('"', '"'), ('a "b"', 'a "b"'), ("'A cat'", "A cat")]
)
def test_answers_become_one_line(said: str, line: str) -> None:
    assert unquoted(said) == line
