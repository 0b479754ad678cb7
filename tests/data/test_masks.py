"""White is learned from, black is not, and the weight of each latent is the share of white among its pixels after the picture's own crop and flip."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from darkroom.data.buckets import bucket_shapes, fit
from darkroom.data.crops import crop_at
from darkroom.data.masks import alpha_mask, find_masks, fitting_mask, mask_name, mask_weights
from darkroom.errors import DatasetError


def written(path: Path, values: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values.astype(np.uint8)).save(path)
    return path


@given(st.integers(0, 10_000), st.booleans(), st.sampled_from([(64, 64), (128, 64), (90, 64)]))
def test_weights_are_the_share_of_white(tmp_path_factory: pytest.TempPathFactory, seed: int, flipped: bool, size: tuple[int, int]) -> None:
    """Against torch's average pooling of the crop of the unscaled mask."""
    values = np.random.default_rng(seed).integers(0, 256, (size[1], size[0]))
    path = written(tmp_path_factory.mktemp("m") / "a.png", values)
    found = crop_at(fit(*size, [(64, 64)]), seed, 0, "s")
    weights = mask_weights(path, found, flipped, 4)
    assert weights.shape == (16, 16) and weights.dtype == np.float32 and weights.min() >= 0 and weights.max() <= 1
    cut = values[found.top : found.top + 64, found.left : found.left + 64]
    cut = cut[:, ::-1].copy() if flipped else cut
    oracle = torch.nn.functional.avg_pool2d(torch.from_numpy(cut.astype(np.float64) / 255)[None, None], 4)[0, 0].numpy()
    assert np.abs(weights - oracle).max() < 1e-6


def test_the_mask_is_cut_as_its_picture_is(tmp_path: Path) -> None:
    """A picture that is its own mask: where the cut picture is bright, the weight is high."""
    y, x = np.mgrid[0:300, 0:500]
    values = np.where((x - 330) ** 2 + (y - 120) ** 2 < 60**2, 255, 0)
    path = written(tmp_path / "a.png", values)
    for shapes in (bucket_shapes(64, 16), bucket_shapes(128, 32), [(64, 64)]):
        found = fit(500, 300, shapes)
        picture = np.asarray(found.apply(Image.open(path).convert("RGB")).convert("L"), np.float64) / 255
        seen = picture.reshape(picture.shape[0] // 8, 8, picture.shape[1] // 8, 8).mean((1, 3))
        assert np.abs(mask_weights(path, found, False, 8) - seen).max() < 0.06


def test_a_crop_without_white_is_refused(tmp_path: Path) -> None:
    values = np.zeros((64, 256))
    values[:, :20] = 255
    path = written(tmp_path / "a.png", values)
    with pytest.raises(DatasetError, match="--focus"):
        mask_weights(path, fit(256, 64, [(64, 64)]), False, 8)


def test_alpha_becomes_a_mask_upright(tmp_path: Path) -> None:
    picture = Image.new("RGBA", (40, 20), (200, 0, 0, 255))
    picture.paste((0, 0, 0, 0), (0, 0, 10, 20))
    turned = picture.getexif()
    turned[0x0112] = 6
    picture.save(tmp_path / "a.png", exif=turned)
    found = alpha_mask(tmp_path / "a.png")
    assert found is not None and found.size == (20, 40) and found.mode == "L"
    assert np.asarray(found)[:10].max() == 0 and np.asarray(found)[10:].min() == 255


def test_no_alpha_opaque_alpha_and_nothing_but_alpha(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "rgb.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 255)).save(tmp_path / "opaque.png")
    Image.new("RGBA", (8, 8), (1, 2, 3, 0)).save(tmp_path / "nothing.png")
    grey = Image.new("LA", (8, 8), (9, 255))
    grey.paste((9, 0), (0, 0, 4, 8))
    grey.save(tmp_path / "la.png")
    assert alpha_mask(tmp_path / "rgb.png") is None and alpha_mask(tmp_path / "opaque.png") is None
    assert np.asarray(alpha_mask(tmp_path / "la.png")).mean() == 127.5
    with pytest.raises(DatasetError, match="transparent all over"):
        alpha_mask(tmp_path / "nothing.png")


@pytest.mark.parametrize(
    ("size", "value", "said"),
    [((40, 20), 0, "black all over"), ((20, 40), 128, "turned"), ((41, 30), 128, "must have its picture's shape")],
)
def test_masks_that_cannot_be(tmp_path: Path, size: tuple[int, int], value: int, said: str) -> None:
    path = written(tmp_path / "a.png", np.full((size[1], size[0]), value))
    with pytest.raises(DatasetError, match=said):
        fitting_mask(path, (40, 20))


def test_masks_are_brought_to_their_pictures_size(tmp_path: Path) -> None:
    values = np.zeros((10, 20))
    values[:, 10:] = 255
    path = written(tmp_path / "a.png", values)
    found = fitting_mask(path, (201, 100))  # a scaled picture's size is rounded
    assert found is not None and found.size == (201, 100)
    assert np.asarray(found)[:, :90].max() == 0 and np.asarray(found)[:, 115:].min() == 255
    assert fitting_mask(written(tmp_path / "white.png", np.full((10, 20), 255)), (20, 10)) is None, "white all over is no mask"
    (tmp_path / "broken.png").write_bytes(b"no picture")
    with pytest.raises(DatasetError, match="is not a picture"):
        fitting_mask(tmp_path / "broken.png", (20, 10))


def test_a_cut_out_is_a_mask_by_its_alpha(tmp_path: Path) -> None:
    cut = Image.new("RGBA", (8, 8), (0, 0, 0, 255))
    cut.paste((0, 0, 0, 0), (0, 0, 4, 8))
    cut.save(tmp_path / "a.png")
    assert np.asarray(fitting_mask(tmp_path / "a.png", (8, 8)))[0].tolist() == [0] * 4 + [255] * 4


def test_masks_find_their_pictures(tmp_path: Path) -> None:
    for name in ("a.png", "sub/b.webp.png", "c.jpg", "lost.png"):
        written(tmp_path / name, np.full((4, 4), 9)) if not name.endswith("jpg") else Image.new("L", (4, 4), 9).save(tmp_path / name)
    found, orphans = find_masks(tmp_path, ["a.jpg", "sub/b.webp", "deep/c.png", "sub/a.png"])
    assert {file: path.relative_to(tmp_path).as_posix() for file, path in found.items()} == {
        "a.jpg": "a.png",
        "sub/b.webp": "sub/b.webp.png",
        "deep/c.png": "c.jpg",
    }
    assert [path.name for path in orphans] == ["lost.png"]


def test_masks_in_doubt_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="holds no mask"):
        find_masks(tmp_path, ["a.jpg"])
    written(tmp_path / "a.png", np.full((4, 4), 9))
    with pytest.raises(DatasetError, match=r"one/a\.jpg or two/a\.jpg"):
        find_masks(tmp_path, ["one/a.jpg", "two/a.jpg"])
    written(tmp_path / "a.webp", np.full((4, 4), 9))
    with pytest.raises(DatasetError, match="two masks"):
        find_masks(tmp_path, ["a.jpg"])


@given(st.lists(st.sampled_from(["a.jpg", "a.png", "a.jpg.png", "x/a.jpg", "x/a.png", "a.png.jpg"]), unique=True))
def test_no_two_pictures_share_a_mask(files: list[str]) -> None:
    assert len({mask_name(file) for file in files}) == len(files)
