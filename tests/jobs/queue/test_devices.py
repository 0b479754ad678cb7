"""Devices are told as CUDA counts them, and at once."""

from __future__ import annotations

import subprocess
import sys

import pytest

from darkroom.jobs.queue import devices
from darkroom.jobs.queue.devices import seen
from darkroom.jobs.queue.launch import seeing


def test_the_cpu_is_always_there_and_torch_is_not_opened() -> None:
    assert devices()[-1]["name"] == "cpu"
    code = "import sys; from darkroom.jobs.queue import Line, devices; devices(); assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_cards_that_are_hidden_are_not_offered() -> None:
    cards = ["A", "B", "C"]
    assert seen(cards, None) == cards
    assert seen(cards, "2,0") == ["C", "A"]
    assert seen(cards, "") == seen(cards, "-1") == []
    assert seen(cards, "GPU-7f") == ["GPU GPU-7f"]


def test_a_job_sees_its_own_device_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert seeing("cuda:1")["CUDA_VISIBLE_DEVICES"] == "1" and seeing("cpu")["CUDA_VISIBLE_DEVICES"] == ""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,6")
    assert seeing("cuda:1")["CUDA_VISIBLE_DEVICES"] == "6"
    monkeypatch.setenv("DARKROOM_STUDIO_TOKEN", "secret")
    assert "secret" not in seeing("cpu").values()
