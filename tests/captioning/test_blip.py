"""BLIP as it is shipped, with random weights: no torchvision, the picture decides, a prompt begins the caption."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from darkroom.captioning import Blip, Exhibit
from darkroom.data.manifest import Row
from support.captioners import BERT, write_blip


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_blip(tmp_path_factory.mktemp("blip"))


def shown(count: int) -> list[Exhibit]:
    return [Exhibit(Row(f"{n}.png"), Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 30, 3), dtype=np.uint8))) for n in range(count)]


def test_torchvision_is_not_wanted(model: Path) -> None:
    Blip(model=str(model)).open("cpu", ())
    assert "torchvision" not in sys.modules


def test_it_says_what_transformers_own_steps_say(model: Path) -> None:
    """The field's few lines: pixels by hand rather than by the processor, generate, decode."""
    from transformers import BertTokenizer, BlipForConditionalGeneration

    network, words = BlipForConditionalGeneration.from_pretrained(model).eval(), BertTokenizer(str(model / "vocab.txt"))
    mean, std = np.array([0.48145466, 0.4578275, 0.40821073]), np.array([0.26862954, 0.26130258, 0.27577711])
    wanted = []
    for exhibit in shown(4):
        pixels = (np.asarray(exhibit.seen.resize((32, 32), Image.Resampling.BICUBIC)) / 255 - mean) / std
        with torch.no_grad():
            tokens = network.generate(torch.tensor(pixels, dtype=torch.float32).permute(2, 0, 1)[None], num_beams=2, max_new_tokens=8, min_new_tokens=5)
        wanted.append(" ".join(words.decode(tokens[0], skip_special_tokens=True).split()))
    assert Blip(model=str(model), beams=2, longest=8).open("cpu", ()).write(shown(4)) == wanted
    assert len(set(wanted)) == 4


def test_a_prompt_begins_every_caption(model: Path) -> None:
    told = Blip(model=str(model), prompt="a photo of", longest=6).open("cpu", ()).write(shown(3))
    assert all(text.startswith("a photo of ") and len(text.split()) > 3 for text in told)
    assert len(set(told)) > 1, "the picture still decides how it goes on"


def test_lengths_hold(model: Path) -> None:
    for longest in (5, 12):
        told = Blip(model=str(model), beams=1, longest=longest, shortest=5).open("cpu", ()).write(shown(6))
        assert all(len(text.split()) <= longest for text in told), told
        assert max(len(text.split()) for text in told) == longest
    assert {word for text in told for word in text.split()} <= set(BERT)
