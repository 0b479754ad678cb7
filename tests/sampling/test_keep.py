"""What stays of a picture stays to the byte, faces are found, and no seam shows."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFilter

from darkroom.errors import DatasetError, RecipeError
from darkroom.sampling.keep import blend, face_mask, find_faces, hold_mask, read_mask, seam


def portrait(width=320, height=320, at=(90, 70), size=150):
    """A drawn head of which the cascade is sure: skin, hair, brows, eyes, nose, mouth, soft shading."""
    big = Image.new("RGB", (width, height), (110, 130, 150))
    pen = ImageDraw.Draw(big)

    def box(x0, y0, x1, y1):
        return (at[0] + x0 * size, at[1] + y0 * size, at[0] + x1 * size, at[1] + y1 * size)

    pen.ellipse(box(-0.05, -0.25, 1.05, 1.0), (60, 40, 30))
    pen.ellipse(box(0.05, -0.05, 0.95, 1.2), (226, 180, 150))
    for x in (0.22, 0.58):
        pen.rectangle(box(x, 0.28, x + 0.2, 0.33), (70, 45, 35))
        pen.ellipse(box(x - 0.02, 0.36, x + 0.22, 0.5), (150, 105, 90))
        pen.ellipse(box(x + 0.01, 0.39, x + 0.19, 0.49), (245, 245, 245))
        pen.ellipse(box(x + 0.06, 0.39, x + 0.14, 0.49), (30, 25, 25))
    pen.polygon([box(0.5, 0.45, 0, 0)[:2], box(0.41, 0.72, 0, 0)[:2], box(0.59, 0.72, 0, 0)[:2]], (200, 150, 122))
    pen.ellipse(box(0.33, 0.82, 0.67, 0.93), (160, 70, 70))
    return big.filter(ImageFilter.GaussianBlur(size / 75))


def noise(seed, size=(96, 96)):
    rng = np.random.default_rng(seed)
    small = Image.fromarray(rng.integers(0, 255, (12, 12, 3), dtype=np.uint8))
    return small.resize(size, Image.Resampling.BICUBIC)


class TestFaces:
    def test_a_face_is_found_where_it_is(self):
        pytest.importorskip("cv2", reason="needs OpenCV: the [vision] extra")
        for picture, at, size in (
            (portrait(), (90, 70), 150),
            (portrait(1600, 1200, (700, 300), 500), (700, 300), 500),
            (portrait(80, 80, (20, 18), 40), (20, 18), 40),
        ):
            (left, top, right, bottom), *more = find_faces(picture)
            assert not more
            assert abs((left + right) / 2 - (at[0] + size / 2)) < 0.15 * size and abs((top + bottom) / 2 - (at[1] + size * 0.6)) < 0.25 * size
            assert 0.6 * size < right - left < 1.4 * size

    def test_its_mask_covers_it_and_little_else(self):
        pytest.importorskip("cv2", reason="needs OpenCV: the [vision] extra")
        mask = np.asarray(face_mask(portrait())) / 255
        assert mask[160, 165] == 1 and mask[5, 5] == 0 and 0.1 < mask.mean() < 0.4

    def test_where_there_is_none_it_says_so(self, shared):
        pytest.importorskip("cv2", reason="needs OpenCV: the [vision] extra")
        with pytest.raises(DatasetError, match=r"no face was found.*--keep MASK.png"):
            face_mask(noise(1, (256, 256)))
        from darkroom.data.picture import read_picture

        folder = shared / "assets" / "dreambooth"
        hardest = [folder / "dog" / "00.jpg", folder / "robot_toy" / "01.jpg", folder / "backpack" / "05.jpg"]
        if not all(path.is_file() for path in hardest):
            pytest.skip("../shared/assets is not here")
        assert [path.name for path in hardest if find_faces(read_picture(path))] == []

    def test_the_largest_comes_first(self):
        pytest.importorskip("cv2", reason="needs OpenCV: the [vision] extra")
        both = Image.new("RGB", (640, 320), (110, 130, 150))
        both.paste(portrait(320, 320, (110, 100), 100), (0, 0))
        both.paste(portrait(320, 320, (70, 60), 170), (320, 0))
        first, second = find_faces(both)
        assert first[0] > 320 > second[2] and first[2] - first[0] > second[2] - second[0]

    def test_a_face_that_looks_right_is_found_in_the_mirror(self, monkeypatch):
        """The profile cascade is stood in for by one that knows only the mirrored picture, in which a white patch lies at the left."""
        pytest.importorskip("cv2", reason="needs OpenCV: the [vision] extra")

        class Stand:
            def __init__(self, name):
                self.name = name

            def detectMultiScale(self, grey, step, least, minSize):
                return [(16, 80, 64, 64)] if self.name == "profileface" and grey[112, 48] > 200 else ()

        monkeypatch.setattr("darkroom.sampling.keep._cascade", lambda cv2, name: Stand(name))
        picture = Image.new("RGB", (400, 320))
        picture.paste((255, 255, 255), (320, 80, 384, 144))
        assert find_faces(picture) == [(320, 80, 384, 144)]

    def test_an_opencv_without_cascades(self):
        from types import SimpleNamespace

        from darkroom.sampling.keep import _cascade

        with pytest.raises(RecipeError, match=r"5\.0\.0.*sdxl-darkroom\[vision\]"):
            _cascade(SimpleNamespace(__version__="5.0.0"), "frontalface_alt2")


class TestBlend:
    mask = Image.new("L", (96, 96), 0)
    ImageDraw.Draw(mask).ellipse((20, 20, 76, 76), 255)

    def test_both_sides_keep_their_bytes(self):
        kept, drawn = noise(1), noise(2)
        found = np.asarray(blend(kept, drawn, self.mask, 8))
        from scipy.ndimage import distance_transform_edt

        depth = distance_transform_edt(np.asarray(self.mask) >= 128)
        assert np.array_equal(found[depth >= 8], np.asarray(kept)[depth >= 8])
        assert np.array_equal(found[depth == 0], np.asarray(drawn)[depth == 0])
        assert (depth >= 8).sum() > 1000

    def test_no_seam_shows(self):
        """A drawing that carries on what is kept, 24 levels brighter: pasting shows a seam, blending does not."""
        kept = noise(1)
        drawn = Image.fromarray(np.clip(np.asarray(kept, int) * 0.8 + 49, 0, 255).astype(np.uint8))
        naive = Image.composite(kept, drawn, self.mask)
        blended = blend(kept, drawn, self.mask, 10)
        assert seam(naive, self.mask) > 1.5 > 1.25 > seam(blended, self.mask)
        assert seam(kept, self.mask) == pytest.approx(1, abs=0.25)

    def test_a_thin_part_keeps_its_middle(self):
        thin = Image.new("L", (96, 96), 0)
        ImageDraw.Draw(thin).rectangle((40, 0, 50, 95), 255)
        kept, drawn = noise(1), noise(2)
        found = np.asarray(blend(kept, drawn, thin, 40))
        assert np.array_equal(found[:, 45], np.asarray(kept)[:, 45])


def test_hold_is_the_share_of_each_latents_pixels():
    mask = Image.new("L", (16, 16), 0)
    ImageDraw.Draw(mask).rectangle((0, 0, 5, 15), 255)
    found = hold_mask(mask, 4)
    assert found.shape == (1, 1, 4, 4)
    torch.testing.assert_close(found[0, 0, 0], torch.tensor([1, 0.5, 0, 0]))


class TestReading:
    def test_brightness_or_alpha(self, tmp_path):
        grey = Image.new("L", (8, 8), 0)
        grey.paste(255, (0, 0, 8, 4))
        grey.save(tmp_path / "grey.png")
        grey.convert("1").save(tmp_path / "one.png")
        layered = Image.new("RGB", (8, 8), (9, 9, 9))
        layered.putalpha(grey)
        layered.save(tmp_path / "alpha.png")
        Image.fromarray(np.asarray(grey, np.uint16) * 257).save(tmp_path / "sixteen.png")
        grey.convert("RGBA").save(tmp_path / "opaque.png")
        for name in ("grey", "one", "alpha", "sixteen", "opaque"):
            assert read_mask(tmp_path / f"{name}.png", (8, 8), "mask").tobytes() == grey.tobytes()

    @pytest.mark.parametrize(
        ("what", "value", "words"), [("mask", 0, "nothing would be drawn"), ("mask", 255, "all would be drawn"), ("keep", 255, "nothing would be drawn")]
    )
    def test_of_one_value(self, tmp_path, what, value, words):
        Image.new("L", (8, 8), value).save(tmp_path / "m.png")
        with pytest.raises(DatasetError, match=words):
            read_mask(tmp_path / "m.png", (8, 8), what)

    def test_of_another_size_or_none(self, tmp_path):
        Image.new("L", (8, 9), 0).save(tmp_path / "m.png")
        with pytest.raises(DatasetError, match=r"8 x 9.*8 x 8"):
            read_mask(tmp_path / "m.png", (8, 8), "mask")
        (tmp_path / "m.png").write_text("no picture")
        for name in ("m.png", "none.png"):
            with pytest.raises(DatasetError, match=name):
                read_mask(tmp_path / name, (8, 8), "mask")


def test_drawing_holds_the_kept_part(model, tmp_path):
    """img2img over a photo with a kept part: its core is the photo's own bytes, the rest is drawn."""
    from darkroom.jobs.generate import draw_files
    from darkroom.sampling.request import Request

    photo = noise(3, (64, 64))
    photo.save(tmp_path / "photo.png")
    mask = Image.new("L", (64, 64), 0)
    ImageDraw.Draw(mask).ellipse((14, 14, 50, 50), 255)
    mask.save(tmp_path / "keep.png")
    asked = Request(prompt="a flat robot on a blue background", image=str(tmp_path / "photo.png"), strength=0.9, steps=10, keep=str(tmp_path / "keep.png"))
    hard = asked.model_copy(update={"feather": 1})
    draw_files([(asked, tmp_path / "kept.png"), (asked.model_copy(update={"keep": ""}), tmp_path / "free.png"), (hard, tmp_path / "hard.png")], "cpu")
    kept, free, own = (np.asarray(Image.open(path).convert("RGB"), int) for path in (tmp_path / "kept.png", tmp_path / "free.png", tmp_path / "photo.png"))
    assert np.array_equal(kept[24:40, 24:40], own[24:40, 24:40]) and np.abs(free - own)[24:40, 24:40].mean() > 10
    assert np.abs(kept - own)[:8].mean() > 10, "the rest was not drawn"
    assert seam(Image.open(tmp_path / "kept.png"), mask) < 0.85 * seam(Image.open(tmp_path / "hard.png"), mask)
