"""Every way a picture can be stored gives the upright RGB that a person sees, and what is no whole picture is refused by name."""

from __future__ import annotations

import io
import struct
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from darkroom.data.picture import ENDINGS, MAX_PIXELS, read_picture, stated_dpi, upright_size
from darkroom.errors import DatasetError

SHARED = Path(__file__).parents[2].parent / "shared"
FORMATS = {".jpg": "JPEG", ".png": "PNG", ".webp": "WEBP", ".bmp": "BMP", ".tif": "TIFF"}
NOISE = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)


def encoded(ending: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(NOISE).save(buffer, FORMATS[ending], **options)
    return buffer.getvalue()


def pixel(path: Path) -> tuple[int, ...]:
    picture = read_picture(path)
    assert picture.mode == "RGB"
    found = picture.getpixel((0, 0))
    assert isinstance(found, tuple)
    return found


@pytest.mark.parametrize("ending", sorted(ENDINGS | {".JPG", ".PNG"}))
def test_every_ending_that_is_promised_is_read(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"a{ending}"
    if ending in (".heic", ".heif"):
        pytest.importorskip("pillow_heif", reason="Pillow writes no HEIC without it").register_heif_opener()
    Image.fromarray(NOISE).save(path, **({"format": "JPEG"} if ending == ".jfif" else {}))
    found = np.asarray(read_picture(path), float)
    assert found.shape == NOISE.shape
    if ending.lower() in (".png", ".bmp", ".tif", ".tiff"):
        assert (found == NOISE).all()


@pytest.mark.parametrize(
    ("orientation", "undo"),
    [
        (1, lambda a: a),
        (2, np.fliplr),
        (3, lambda a: np.rot90(a, 2)),
        (4, np.flipud),
        (5, lambda a: a.transpose(1, 0, 2)),
        (6, lambda a: np.rot90(a, -1)),
        (7, lambda a: np.rot90(a, 2).transpose(1, 0, 2)),
        (8, np.rot90),
    ],
)
def test_exif_rotation_is_applied(tmp_path: Path, orientation: int, undo: Any) -> None:
    """All eight orientations of the Exif standard, undone by numpy."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(NOISE).save(tmp_path / "a.png", exif=exif)
    assert (np.asarray(read_picture(tmp_path / "a.png")) == undo(NOISE)).all()
    Image.fromarray(NOISE).save(tmp_path / "a.jpg", exif=exif)
    assert read_picture(tmp_path / "a.jpg").size == undo(NOISE).shape[1::-1]


def test_malformed_exif_does_not_stop_a_whole_picture(tmp_path: Path) -> None:
    """Cameras and editors write tags of a wrong type: here ImageWidth is text. The picture is whole and on its side."""
    entries = [struct.pack(">HHI4s", 0x0100, 2, 4, b"abc\0"), struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0)]
    exif = b"Exif\0\0MM\0*" + struct.pack(">IH", 8, len(entries)) + b"".join(entries) + bytes(4)
    (tmp_path / "a.jpg").write_bytes(encoded(".jpg", exif=exif))
    assert read_picture(tmp_path / "a.jpg").size == (48, 64)


@pytest.mark.parametrize(
    ("ink", "seen"), [((0, 0, 0, 0), (255, 255, 255)), ((0, 255, 255, 0), (255, 0, 0)), ((0, 0, 0, 255), (0, 0, 0)), ((255, 0, 0, 0), (0, 255, 255))]
)
def test_cmyk_is_the_colour_of_its_inks(tmp_path: Path, ink: tuple[int, ...], seen: tuple[int, ...]) -> None:
    Image.new("CMYK", (8, 8), ink).save(tmp_path / "a.jpg", quality=100)
    assert pixel(tmp_path / "a.jpg") == pytest.approx(seen, abs=2)


@pytest.mark.parametrize(
    ("mode", "colour", "seen"),
    [
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),  # what lies under transparency is not seen
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (0, 0, 0, 128), (127, 127, 127)),
        ("LA", (90, 0), (255, 255, 255)),
        ("LA", (90, 255), (90, 90, 90)),
        ("L", 77, (77, 77, 77)),
        ("1", 1, (255, 255, 255)),
        ("RGB", (1, 2, 3), (1, 2, 3)),
    ],
)
def test_transparency_is_white(tmp_path: Path, mode: str, colour: Any, seen: tuple[int, ...]) -> None:
    Image.new(mode, (4, 4), colour).save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == seen


@pytest.mark.parametrize(("mode", "colour", "key"), [("P", 1, 1), ("P", 1, b"\xff\x00"), ("L", 50, 50), ("RGB", (255, 0, 0), (255, 0, 0))])
def test_a_colour_declared_transparent_is_white(tmp_path: Path, mode: str, colour: Any, key: Any) -> None:
    """PNG's tRNS chunk: an index, a list of alphas, a grey or a colour that is not there."""
    picture = Image.new(mode, (4, 4), colour)
    if mode == "P":
        picture.putpalette([0, 0, 255, 255, 0, 0])
    picture.save(tmp_path / "a.png", transparency=key)
    assert pixel(tmp_path / "a.png") == (255, 255, 255)


def test_a_palette_has_its_colours(tmp_path: Path) -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 255, 255, 0, 0])
    picture.save(tmp_path / "a.png")
    assert pixel(tmp_path / "a.png") == (255, 0, 0)


@pytest.mark.parametrize("ending", [".png", ".tif"])
def test_sixteen_bit_grey_becomes_the_same_grey(tmp_path: Path, ending: str) -> None:
    """All 65,536 greys; 257 v of 65,535 is v of 255, so a picture that was widened comes back unchanged."""
    grey = np.arange(65536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(grey).save(tmp_path / f"a{ending}")
    found = np.asarray(read_picture(tmp_path / f"a{ending}"), float)
    assert np.abs(found - grey[..., None] / 257).max() < 1
    assert (found.reshape(-1, 3)[::257] == np.arange(256)[:, None]).all()


def test_float_grey_is_scaled_to_eight_bits(tmp_path: Path) -> None:
    """0.0 to 1.0 is black to white, and not black to nearly black."""
    Image.fromarray(np.linspace(0, 1, 64, dtype=np.float32).reshape(8, 8)).save(tmp_path / "a.tif")
    found = np.asarray(read_picture(tmp_path / "a.tif"))
    assert found.min() == 0 and found.max() >= 254


def test_of_several_pictures_in_one_file_the_first_is_read(tmp_path: Path) -> None:
    """Phones write MPO under the name .jpg: the photo, then a small one or a depth map."""
    red, black = Image.new("RGB", (16, 8), (200, 30, 30)), Image.new("RGB", (16, 8))
    red.save(tmp_path / "a.jpg", "MPO", save_all=True, append_images=[black], quality=100)
    with Image.open(tmp_path / "a.jpg") as opened:
        assert opened.format == "MPO"
    assert pixel(tmp_path / "a.jpg") == pytest.approx((200, 30, 30), abs=3)


def stored(kind: str) -> bytes:
    """NOISE in a way that only some programs write."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not here")
    deep = NOISE[..., ::-1].astype(np.uint16) * 257 + 77
    match kind:
        case "16-bit colour png":
            return bytes(cv2.imencode(".png", deep)[1])
        case "16-bit colour tiff":
            return bytes(cv2.imencode(".tif", deep)[1])
        case "16-bit grey png":
            return bytes(cv2.imencode(".png", deep[..., 0])[1])
        case "progressive jpeg":
            return bytes(cv2.imencode(".jpg", NOISE, [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_QUALITY, 95])[1])
        case "lossless webp":
            return encoded(".webp", lossless=True)
        case "cmyk jpeg":
            buffer = io.BytesIO()
            Image.fromarray(NOISE).resize((16, 12)).resize((64, 48)).convert("CMYK").save(buffer, "JPEG", quality=97)
            return buffer.getvalue()
        case "palette png":
            buffer = io.BytesIO()
            Image.fromarray(NOISE).quantize(200).save(buffer, "PNG")
            return buffer.getvalue()
        case _:
            return encoded(".tif", compression=kind.removesuffix(" tiff"))


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        ("16-bit colour png", 1), ("16-bit colour tiff", 1), ("16-bit grey png", 1), ("progressive jpeg", 3), ("lossless webp", 0), ("cmyk jpeg", 4),
        ("palette png", 0), ("tiff_lzw tiff", 0), ("packbits tiff", 0), ("tiff_adobe_deflate tiff", 0),
    ],
)  # fmt: skip
def test_opencv_reads_the_same(tmp_path: Path, kind: str, most: int) -> None:
    """Another decoder than Pillow, on the same bytes; both bring 16 bits to 8, and rounding may differ by one."""
    cv2 = pytest.importorskip("cv2", reason="OpenCV is not here")
    data = stored(kind)
    (tmp_path / "a.png").write_bytes(data)
    theirs = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)[..., ::-1].astype(int)
    ours = np.asarray(read_picture(tmp_path / "a.png"), int)
    assert ours.shape == theirs.shape and np.abs(ours - theirs).max() <= most


def test_sixteen_bit_transparency_is_white(tmp_path: Path) -> None:
    """Grey with alpha at 16 bits, written by hand: Pillow writes none."""
    rows = b"".join(b"\0" + struct.pack(">4H", 0x8080, 0xFFFF, 0x8080, 0) for _ in range(2))

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 2, 2, 16, 4, 0, 0, 0))
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))
    assert np.asarray(read_picture(tmp_path / "a.png"))[0].tolist() == [[128] * 3, [255] * 3]


def test_png_exif_behind_the_pixels_is_found_without_decoding_them(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(NOISE).save(tmp_path / "a.png", exif=exif)
    data = (tmp_path / "a.png").read_bytes()
    at = data.index(b"eXIf") - 4
    length = struct.unpack(">I", data[at : at + 4])[0] + 12
    block, rest = data[at : at + length], data[:at] + data[at + length :]
    end = rest.rindex(b"IEND") - 4
    (tmp_path / "b.png").write_bytes(rest[:end] + block + rest[end:])
    with Image.open(tmp_path / "b.png") as opened:
        assert upright_size(opened) == (48, 64)
        assert opened.png is not None, "it was decoded"
    assert (np.asarray(read_picture(tmp_path / "b.png")) == np.rot90(NOISE, -1)).all()


@pytest.mark.parametrize(
    ("ending", "dpi", "exif", "stated"),
    [
        (".jpg", (300, 300), None, 300), (".jpg", (72, 72), None, 72), (".jpg", None, None, 0), (".jpg", None, {0x010F: "a camera"}, 0),
        (".jpg", None, {282: 72.0, 283: 72.0, 296: 2}, 0), (".jpg", None, {282: 240.0, 283: 240.0, 296: 2}, 240),
        (".jpg", None, {282: 100.0, 283: 100.0, 296: 3}, 254), (".png", (96, 96), None, 96), (".png", None, None, 0), (".tif", (150, 150), None, 150),
        (".bmp", (120, 120), None, 120), (".webp", None, None, 0),
    ],
)  # fmt: skip
def test_only_dpi_that_was_stated_counts(tmp_path: Path, ending: str, dpi: Any, exif: dict[int, Any] | None, stated: float) -> None:
    """EXIF's 72 is the standard's word for unknown; Pillow's own figure is 72 for every JPEG whose EXIF says nothing."""
    options: dict[str, Any] = {"dpi": dpi} if dpi else {}
    if exif is not None:
        options["exif"] = Image.Exif()
        for tag, value in exif.items():
            options["exif"][tag] = value
    Image.fromarray(NOISE).save(tmp_path / f"a{ending}", **options)
    with Image.open(tmp_path / f"a{ending}") as opened:
        assert round(stated_dpi(opened)) == stated


def test_heic_without_its_plugin_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    (tmp_path / "a.heic").write_bytes(b"\0\0\0\x18ftypheic" + bytes(64))
    with pytest.raises(DatasetError, match=r"a\.heic: HEIC is read through pillow-heif: pip install pillow-heif"):
        read_picture(tmp_path / "a.heic")


@pytest.mark.parametrize(("values", "white"), [([0, 1000, 65535], 65535), ([0, 2**30, 2**31 - 1], 2**31 - 1)])
def test_deep_integer_grey_is_scaled_by_its_depth(tmp_path: Path, values: list[int], white: int) -> None:
    Image.fromarray(np.array([values], np.int32)).save(tmp_path / "a.tif")
    found = np.asarray(read_picture(tmp_path / "a.tif"), float)[0, :, 0]
    assert np.abs(found - np.array(values) / white * 255).max() <= 1


@pytest.mark.parametrize("ending", FORMATS)
def test_half_a_picture_is_refused_by_name(tmp_path: Path, ending: str) -> None:
    data = encoded(ending)
    (tmp_path / f"half{ending}").write_bytes(data[: len(data) // 2])
    with pytest.raises(DatasetError, match=rf"half\{ending}: .*(Take it out|replace it)"):
        read_picture(tmp_path / f"half{ending}")


@pytest.mark.parametrize("content", [b"", b"this is text\n" * 20, b"<svg xmlns='http://www.w3.org/2000/svg'/>"])
def test_text_named_png_is_refused_by_name(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.png: is not a picture"):
        read_picture(tmp_path / "a.png")


def test_a_missing_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"a\.png: there is no such file"):
        read_picture(tmp_path / "a.png")


@pytest.mark.parametrize("side", [13_400, 60_000])  # just above the limit, and above what Pillow itself refuses
def test_a_decompression_bomb_is_refused_before_it_is_unpacked(tmp_path: Path, side: int) -> None:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    assert side**2 > MAX_PIXELS
    with pytest.raises(DatasetError, match=r"bomb\.png: .*178,956,970"):
        read_picture(tmp_path / "bomb.png")


@given(st.sampled_from(sorted(FORMATS)), st.floats(0, 1), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=4))
@settings(deadline=None, max_examples=120)
@pytest.mark.filterwarnings("ignore")  # Pillow warns of odd files, rightly
def test_a_damaged_file_is_a_picture_or_the_users_mistake(
    tmp_path_factory: pytest.TempPathFactory, ending: str, kept: float, damage: list[tuple[float, int]]
) -> None:
    """Cut anywhere, bytes changed anywhere: never another error than DatasetError."""
    data = bytearray(encoded(ending))
    for place, value in damage:
        data[int(place * len(data))] = value
    path = tmp_path_factory.getbasetemp() / f"damaged{ending}"
    path.write_bytes(data[: int(kept * len(data))])
    try:
        assert read_picture(path).mode == "RGB"
    except DatasetError as error:
        assert str(path) in str(error)


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
@pytest.mark.parametrize("folder", ["backpack", "cat2", "dog", "dog6", "duck_toy", "red_cartoon", "robot_toy", "teapot", "vase"])
def test_photos_of_the_dreambooth_set_are_read(folder: str) -> None:
    path = SHARED / "assets" / "dreambooth" / folder / "00.jpg"
    with Image.open(path) as opened:
        stored = opened.size
    picture = read_picture(path)
    assert picture.mode == "RGB" and sorted(picture.size) == sorted(stored)
