"""A prompt is explained without drawing, and its lines say what the facts say."""

from __future__ import annotations

import json

import pytest

from darkroom.cli.prompt import prompt_lines
from darkroom.errors import DarkroomError
from darkroom.jobs.prompt import prompt_facts
from darkroom.prompt import NEGATIVES


def lines(text, **rest):
    facts = prompt_facts(text, device="cpu", **rest)
    assert json.loads(json.dumps(facts)) == facts
    return "\n".join(prompt_lines(facts))


def test_lines_show_weights_tokens_stages_and_adapters():
    shown = lines("a (thorindar:1.3) [cat:dog:0.4] <lora:thor:0.5>", steps=10)
    for wanted in ("reads a1111", "thor|ind|ar  (3)", "    1.3  thorindar", "steps 1 to 4", "steps 5 to 10", "adapter  thor: text 0.5, U-Net 0.5"):
        assert wanted in shown


def test_lines_name_what_the_pooled_text_does_not_see():
    shown = lines("@photo")
    assert "113 tokens in 2 chunks of up to 75: 74, 39" in shown
    assert "where the pooled text does not reach: missing fingers , extra fingers" in shown
    assert prompt_facts("@photo", device="cpu")["source"] == NEGATIVES["photo"]


def test_blends_lie_over_one_another():
    shown = lines('("a red cat", "a dog++").blend(0.3, 0.7)')
    assert "one over another" in shown
    assert "part 2, blended with weight 0.7" in shown
    assert "1.21  dog" in shown


def test_a_mistake_is_told_before_a_model_is_looked_for():
    with pytest.raises(DarkroomError, match="lora"):
        prompt_facts("<lora:>", base="/nowhere")
