"""What one look finds out of a file is what an independent reading says, and no file stops it."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFilter

from darkroom.data.look import LUMINANCE, Look, jpeg_quality, look_at, one_colour, sharpness, without_margin
from darkroom.data.picture import read_picture
from darkroom.data.prints import prints

RNG = np.random.default_rng(0)


def scene(side: int = 256, seed: int = 0) -> Image.Image:
    """Blocks with hard edges: something to be sharp."""
    blocks = np.random.default_rng(seed).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((side, side), Image.Resampling.NEAREST)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_the_header_is_told(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    scene().resize((300, 200)).save(tmp_path / "a.jpg", quality=83, exif=exif, dpi=(150, 150))
    look = look_at(tmp_path / "a.jpg").look
    assert (look.width, look.height) == (200, 300), "upright"
    assert (look.format, look.fault, look.frames, look.quality, look.dpi) == ("JPEG", "", 1, 83, 150)
    assert look.bytes == (tmp_path / "a.jpg").stat().st_size


@pytest.mark.parametrize("quality", [5, 25, 50, 75, 90, 100])
def test_jpeg_quality_is_the_one_it_was_saved_with(quality: int) -> None:
    buffer = io.BytesIO()
    scene().save(buffer, "JPEG", quality=quality)
    assert jpeg_quality(Image.open(buffer)) == quality


def test_the_table_is_libjpegs() -> None:
    """At quality 50 libjpeg writes the standard's own table."""
    buffer = io.BytesIO()
    scene().save(buffer, "JPEG", quality=50)
    assert sorted(Image.open(buffer).quantization[0]) == sorted(LUMINANCE)


def test_a_large_jpeg_is_measured_as_if_it_were_small(tmp_path: Path) -> None:
    """Decoded at a fraction of its size, its figures are near those of the picture reduced by hand."""
    large = scene(2048).filter(ImageFilter.GaussianBlur(2))
    large.save(tmp_path / "a.jpg", quality=95)
    found = look_at(tmp_path / "a.jpg").look
    assert found.sharpness == pytest.approx(sharpness(large.resize((512, 512), Image.Resampling.LANCZOS)), rel=0.35)
    assert found.one_colour == pytest.approx(one_colour(large), abs=0.05)


def test_blur_lowers_sharpness_and_contrast_does_not() -> None:
    sharp = scene()
    soft = sharp.filter(ImageFilter.GaussianBlur(2))
    pale = Image.fromarray((np.asarray(sharp, float) * 0.3 + 150).astype(np.uint8))
    enlarged = sharp.resize((64, 64), Image.Resampling.BOX).resize((256, 256), Image.Resampling.BICUBIC)
    assert sharpness(soft) < 0.45 < sharpness(sharp)
    assert sharpness(enlarged) < 0.45
    assert sharpness(pale) == pytest.approx(sharpness(sharp), rel=0.1)
    assert sharpness(Image.new("RGB", (256, 256), "grey")) == -1


def test_a_plain_background_does_not_hide_sharpness() -> None:
    paper = Image.new("RGB", (512, 512), "white")
    paper.paste(scene(64), (300, 100))
    assert sharpness(paper) > 0.45


def test_one_colour_counts_pixels_near_the_commonest() -> None:
    paper = Image.new("RGB", (100, 100), (200, 200, 200))
    paper.paste((203, 198, 200), (0, 0, 100, 50))
    paper.paste((0, 0, 0), (0, 0, 10, 10))
    assert one_colour(paper) == pytest.approx(0.99)


def test_the_margin_goes_only_around_small_drawings() -> None:
    paper = Image.new("RGB", (400, 400), "white")
    paper.paste(Image.new("RGB", (100, 80), "red"), (37, 200))
    assert without_margin(paper).size == (100, 80)
    paper.paste(Image.new("RGB", (300, 300), "red"), (50, 50))
    assert without_margin(paper).size == (400, 400)
    assert without_margin(scene()).size == (256, 256)


@pytest.mark.parametrize(
    ("kind", "options", "frames"), [("a.gif", {}, 3), ("a.webp", {}, 3), ("a.png", {}, 3), ("a.tif", {}, 3), ("a.mpo", {"format": "MPO"}, 1)]
)
def test_frames_are_counted_and_a_phones_preview_is_none(tmp_path: Path, kind: str, options: dict[str, str], frames: int) -> None:
    scene().save(tmp_path / kind, save_all=True, append_images=[scene(seed=1), scene(seed=2)], **options)
    assert look_at(tmp_path / kind).look.frames == frames


def test_webp_says_whether_it_lost_something(tmp_path: Path) -> None:
    scene().save(tmp_path / "a.webp", lossless=True)
    scene().save(tmp_path / "b.webp", quality=50)
    assert look_at(tmp_path / "a.webp").look.lossless and not look_at(tmp_path / "b.webp").look.lossless


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1", "CMYK", "I;16", "keyed P", "keyed RGB", "turned TIFF"])
def test_a_look_sees_what_reading_sees(tmp_path: Path, mode: str) -> None:
    """Whatever the mode, hashes are those of the whole picture as training reads it."""
    options: dict[str, object] = {}
    picture, path = scene(600), tmp_path / {"CMYK": "a.jpg", "turned TIFF": "a.tif"}.get(mode, "a.png")
    match mode:
        case "I;16":
            picture = Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)
        case "turned TIFF":
            picture = Image.fromarray(np.asarray(picture.convert("L"), np.uint16) * 257)
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = 6  # type: ignore[index]
        case "keyed P":
            picture, options["transparency"] = picture.quantize(64), 3
        case "keyed RGB":
            options["transparency"] = picture.getpixel((0, 0))
        case _:
            picture = picture.convert(mode)
            if mode in ("RGBA", "LA"):
                picture.putalpha(Image.linear_gradient("L").resize(picture.size))
    picture.save(path, **options)
    seen = look_at(path)
    assert seen.prints is not None
    assert np.bitwise_count(seen.prints ^ prints(without_margin(read_picture(path)))).max() <= 4


def test_faults_are_told_and_never_raised(tmp_path: Path) -> None:
    scene().save(tmp_path / "whole.jpg")
    data = (tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "half.jpg").write_bytes(data[: len(data) // 2])
    (tmp_path / "text.png").write_text("not found")
    (tmp_path / "empty.png").write_bytes(b"")
    found = {name: look_at(tmp_path / name).look.fault for name in ("whole.jpg", "half.jpg", "text.png", "empty.png", "gone.png")}
    assert found == {"whole.jpg": "", "half.jpg": "truncated", "text.png": "unreadable", "empty.png": "unreadable", "gone.png": "missing"}


def test_a_bomb_is_not_unpacked(tmp_path: Path) -> None:
    """100 megapixels of zeros in 100 kB: its pixels are broken, which nobody notices because nobody unpacks them, not even to look for EXIF behind them."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 10_000, 10_000, 8, 2, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", b"this cannot be unpacked" * 4000) + chunk(b"IEND", b""))
    look = look_at(tmp_path / "a.png").look
    assert look.fault == "bomb" and (look.width, look.height) == (10_000, 10_000)


def test_many_pixels_with_their_bytes_are_no_bomb() -> None:
    from darkroom.data.look import BOMB_BYTES, BOMB_PIXELS

    assert BOMB_PIXELS < 108e6 and BOMB_BYTES < 20e6 / 108e6, "a phone's 108 megapixels in 20 MB"


def test_a_look_survives_being_written() -> None:
    look = Look(width=3, measured={"faces": 2.0}, told="x")
    assert Look.from_dict(look.as_dict()) == look
