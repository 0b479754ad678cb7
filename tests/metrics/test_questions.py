"""Diversity, drift and sharpness are their formulas; a head is its matrices; what was seen once is not looked at again."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from safetensors.torch import save_file

from darkroom import pocket
from darkroom.data.picture import read_picture
from darkroom.errors import DatasetError, ModelError
from darkroom.metrics import METRICS, Aesthetic, Diversity, Drift, Given, Sharpness
from darkroom.metrics.eye import Eye, laion_head
from darkroom.metrics.heads import read_head
from darkroom.metrics.memory import Notes, Recent, pixels_key, recall


@pytest.fixture(scope="module")
def eye() -> Eye:
    return Eye.load(pocket.folder("scorer"))


@pytest.fixture(scope="module")
def cats() -> list[Image.Image]:
    return [read_picture(path) for path in sorted(pocket.CATS.rglob("*.png"))]


def test_diversity_is_the_mean_pairwise_distance_within_each_prompt(eye: Eye, cats: list[Image.Image]) -> None:
    prompts = ["a", "b", "a", "b", "a", "alone"]
    scores = Diversity(Given(eye))(cats[:6], prompts)
    seen = eye.see(cats[:6]).double().numpy()
    for prompt in "ab":
        own = [i for i, other in enumerate(prompts) if other == prompt]
        pairs = [100 * (1 - seen[i] @ seen[j]) for i in own for j in own if i < j]
        assert np.mean([scores[i] for i in own]) == pytest.approx(np.mean(pairs), abs=1e-6)
    assert math.isnan(scores[5])
    assert Diversity(Given(eye))([cats[0]] * 3, ["a"] * 3) == pytest.approx([0, 0, 0], abs=1e-4)


def test_a_model_that_changed_nothing_drifts_by_0(eye: Eye, cats: list[Image.Image]) -> None:
    prompts = ["a cat"] * 5 + ["two"] * 4
    drift = Drift(Given(eye, base=cats, base_prompts=prompts))
    assert np.mean(drift(cats, prompts)) == pytest.approx(0, abs=1e-6)
    assert math.isnan(drift([cats[0]], ["a dog"])[0]), "a prompt that the base did not draw"


def test_drift_is_distance_beyond_the_bases_own(eye: Eye, cats: list[Image.Image]) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8))
    found = Drift(Given(eye, base=cats[:4]))([noise, cats[8]], ["", ""])
    seen, moved = eye.see(cats[:4]).double().numpy(), eye.see([noise, cats[8]]).double().numpy()
    own = np.mean([1 - seen[i] @ seen[j] for i in range(4) for j in range(4) if i != j])
    assert found == pytest.approx([100 * (np.mean(1 - seen @ one) - own) for one in moved], abs=1e-6)
    assert found[0] > found[1], "noise is further from cats than a cat"


@pytest.mark.parametrize(
    ("count", "prompts", "words"), [(1, (), "there are 1"), (3, ("a",), "1 prompts for 3"), (3, ("a", "b", "c"), "two pictures of some prompt")]
)
def test_drift_without_enough_to_compare_with_is_refused(eye: Eye, cats: list[Image.Image], count: int, prompts: tuple[str, ...], words: str) -> None:
    with pytest.raises(DatasetError, match=words):
        Drift(Given(eye, base=cats[:count], base_prompts=prompts))


def sobel(grey: np.ndarray, axis: int) -> np.ndarray:
    """By hand: [1, 2, 1] across and [-1, 0, 1] along, edges reflected."""
    padded = np.pad(grey, 1, "symmetric")
    if axis == 1:
        padded = padded.T
    found = sum(w * (padded[2:, i : padded.shape[1] - 2 + i] - padded[:-2, i : padded.shape[1] - 2 + i]) for i, w in ((0, 1), (1, 2), (2, 1)))
    return np.asarray(found if axis == 0 else found.T)


def test_sharpness_is_the_blur_effect_written_out() -> None:
    """Crété et al. 2007 in plain numpy: box blur of 11 px, differences before and after."""
    picture = Image.fromarray(np.random.default_rng(1).integers(0, 255, (40, 50, 3), np.uint8)).filter(ImageFilter.GaussianBlur(1.5))
    grey = np.asarray(picture.convert("L"), float) / 255
    shares = []
    for axis in (0, 1):
        padded = np.pad(grey, [(5, 5) if a == axis else (0, 0) for a in (0, 1)], "symmetric")
        blurred = np.stack([np.take(padded, range(i, i + grey.shape[axis]), axis) for i in range(11)]).mean(0)
        sharp, soft = (np.abs(sobel(one, axis))[2:-1, 2:-1] for one in (grey, blurred))
        shares.append(np.maximum(0, sharp - soft).sum() / sharp.sum())
    assert Sharpness(Given())([picture], [""])[0] == pytest.approx(100 * min(shares), rel=1e-9)


def test_each_blur_takes_sharpness_and_one_colour_has_none(cats: list[Image.Image]) -> None:
    found = Sharpness(Given())([cats[0].filter(ImageFilter.GaussianBlur(radius)) for radius in (0, 1, 2, 4)], [""] * 4)
    assert found == sorted(found, reverse=True) and found[0] > 1.3 * found[3]
    assert math.isnan(Sharpness(Given())([Image.new("RGB", (32, 32), "red")], [""])[0])


@pytest.mark.parametrize("form", ["linear.pth", "linear.safetensors", "five.pth"])
def test_heads_by_file_are_their_matrices(form: str, eye: Eye, cats: list[Image.Image], tmp_path: Path) -> None:
    torch.manual_seed(0)
    width, path = int(eye.model.config.projection_dim), tmp_path / form
    head = torch.nn.Linear(width, 1) if form.startswith("linear") else laion_head(width).eval()
    state = dict(head.state_dict()) if form.startswith("linear") else {f"layers.{key}": value for key, value in head.state_dict().items()}
    if path.suffix == ".pth":
        torch.save(state, path)
    else:
        save_file(state, path)
    x = eye.see(cats[:3]).double().numpy()
    for layer in [head] if form.startswith("linear") else [part for part in head if isinstance(part, torch.nn.Linear)]:
        x = x @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
    metric = Aesthetic(Given(eye, models={"aesthetic": str(path)}))
    assert metric(cats[:3], [""] * 3) == pytest.approx(x.ravel().tolist(), abs=1e-5)
    assert metric.key != Aesthetic(Given(eye)).key


def test_a_head_of_another_width_or_kind_is_refused(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(768, 1).state_dict(), tmp_path / "l14.pth")
    torch.save({"some.weight": torch.zeros(2)}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"no")
    for name, words in (
        ("l14", r"768 numbers, and the scorer's have 96"),
        ("other", "is no aesthetic head"),
        ("broken", "no tensors"),
        ("gone", "no such file"),
    ):
        with pytest.raises(ModelError, match=words):
            read_head(tmp_path / f"{name}.pth", 96)


def test_what_was_seen_once_is_not_looked_at_again(cats: list[Image.Image]) -> None:
    """By pixels: the same picture from another object is known; a changed pixel is not."""
    asked: list[int] = []

    def look(pictures: Sequence[Image.Image]) -> torch.Tensor:
        asked.append(len(pictures))
        return torch.tensor([[float(np.asarray(p).mean()), 1.0] for p in pictures])

    memory = Recent()
    first = recall(memory, "net", [*cats, cats[0]], look, batch=4)
    assert sum(asked) == 9, "the one that comes twice is looked at once"
    again = recall(memory, "net", [picture.copy() for picture in cats], look)
    assert sum(asked) == 9 and torch.equal(first[:9], again)
    changed = cats[0].copy()
    changed.putpixel((0, 0), (1, 2, 3))
    recall(memory, "net", [changed], look)
    recall(memory, "another net", [cats[0]], look)
    assert sum(asked) == 11 and pixels_key(changed) != pixels_key(cats[0])


def test_a_piece_of_work_knows_what_it_is_given_and_nothing_that_others_find_out() -> None:
    store = Recent()
    store.put({"net old": b"1"})
    notes = Notes(behind=store)
    assert notes.get("net old") == b"1" and notes.get("net reference") is None
    notes.put({"net reference": b"2"})
    notes.begin({"net given": b"3"})
    assert store.get("net reference") == b"2" and notes.known == {"net old": b"1", "net reference": b"2"}, "what was seen while opening is known to all"
    store.put({"net later": b"4"})
    assert [notes.get(key) for key in ("net old", "net reference", "net given", "net later")] == [b"1", b"2", b"3", None]
    notes.put({"net made": b"5"})
    assert notes.get("net made") == b"5" and notes.new == {"net made": b"5"} and list(notes.asked)[-2:] == ["net later", "net made"]
    notes.begin({})
    assert [notes.get(key) for key in ("net old", "net given", "net made")] == [b"1", None, None]


def test_memory_forgets_the_oldest() -> None:
    memory = Recent(kept=2)
    memory.put({"a": b"1", "b": b"2", "c": b"3"})
    assert memory.get("a") is None and memory.get("c") == b"3"


@pytest.mark.parametrize("name", ["clip", "aesthetic", "likeness", "diversity", "drift"])
def test_what_needs_an_eye_says_so(name: str, cats: list[Image.Image]) -> None:
    with pytest.raises(ModelError, match="--scorer"):
        METRICS[name](Given(references=cats[:2], base=cats[:3]))
