"""Planted duplicates are found, each kind of them, and what only looks alike is left alone."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable
from pathlib import Path

import imagehash
import numpy as np
import pytest
from PIL import Image, ImageDraw

from darkroom.data import near
from darkroom.data.duplicates import find_duplicates, gathered
from darkroom.data.look import look_at, without_margin
from darkroom.data.near import BITS, Gallery
from darkroom.data.picture import read_picture
from darkroom.data.prints import HASHED, PRINTS, THUMB_BYTES, WINDOWS, pattern, prints, thumb

SHARED = Path(__file__).parents[2].parent / "shared" / "assets" / "dreambooth"


def drawn(seed: int, side: int = 192) -> Image.Image:
    """A picture like a photo in what matters here: clouds of colour at all scales, and some things with edges on them."""
    rng = np.random.default_rng(seed)
    canvas = np.zeros((side, side, 3))
    for scale in (3, 6, 12, 24, 48):
        noise = Image.fromarray(rng.integers(0, 256, (scale, scale, 3), dtype=np.uint8)).resize((side, side), Image.Resampling.BICUBIC)
        canvas += (np.asarray(noise, float) - 128) / scale**0.7 * 1.6
    picture = Image.fromarray((canvas + rng.uniform(90, 165, 3)).clip(0, 255).astype(np.uint8))
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(2, 6))):
        x, y = rng.integers(0, side, 2)
        w, h = rng.integers(side // 10, side // 2, 2)
        colour = tuple(int(value) for value in rng.integers(0, 256, 3))
        (pen.ellipse if rng.random() < 0.5 else pen.rectangle)((int(x), int(y), int(x + w), int(y + h)), fill=colour)
    return picture


def recompressed(picture: Image.Image, quality: int = 40) -> Image.Image:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer).convert("RGB")


def half(picture: Image.Image) -> Image.Image:
    return picture.resize((picture.width // 2, picture.height // 2), Image.Resampling.LANCZOS)


def mirrored(picture: Image.Image) -> Image.Image:
    return picture.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


def cut(picture: Image.Image) -> Image.Image:
    """What a crop shifted by 5 % to the right and down shows."""
    return picture.crop((round(picture.width * 0.05), round(picture.height * 0.05), *picture.size))


def moved(picture: Image.Image) -> Image.Image:
    """Shifted by 5 % within its frame: what leaves it on one side comes in on the other."""
    return Image.fromarray(np.roll(np.asarray(picture), (round(picture.height * 0.05), round(picture.width * 0.05)), (0, 1)))


KINDS: dict[str, Callable[[Image.Image], Image.Image]] = {
    "copy": lambda picture: picture,
    "half": half,
    "jpeg 40": recompressed,
    "mirror": mirrored,
    "shift": cut,
    "moved": moved,
    "all": lambda picture: recompressed(mirrored(half(cut(picture))), 60),
}


def seen(pictures: list[Image.Image]) -> tuple[np.ndarray, np.ndarray]:
    inner = [without_margin(picture) for picture in pictures]
    return np.array([prints(one) for one in inner]), np.array([np.frombuffer(thumb(one), np.uint8) for one in inner])


def recall(originals: list[Image.Image]) -> tuple[dict[str, float], float, int]:
    """Found parts by kind, the part of found pairs that is false, and how many pairs there are in all."""
    versions = [original if kind is None else KINDS[kind](original) for original in originals for kind in (None, *KINDS)]
    step = len(KINDS) + 1
    pairs = find_duplicates(*seen(versions))
    found = {(int(one), int(other)) for one, other in pairs}
    by_kind = {kind: np.mean([(n * step, n * step + k) in found for n in range(len(originals))]).item() for k, kind in enumerate(KINDS, 1)}
    false = sum(one // step != other // step for one, other in found)
    return by_kind, false / max(1, len(found)), len(versions) * (len(versions) - 1) // 2


def test_planted_duplicates_of_200_pictures_are_found() -> None:
    """Issue 5, "it shows" 3: recall at least 95 % each, false pairs below 1 %."""
    found, false, _ = recall([drawn(seed) for seed in range(200)])
    assert {kind: part for kind, part in found.items() if part < 0.95} == {}
    assert false < 0.01


@pytest.mark.skipif(not SHARED.is_dir(), reason="../shared is not here")
def test_planted_duplicates_of_photos_are_found_and_photos_of_one_thing_are_not_one() -> None:
    """45 photos of 9 things, five of each."""
    originals = [read_picture(path) for path in sorted(SHARED.glob("*/*.jpg"))]
    for picture in originals:
        picture.thumbnail((512, 512))
    found, false, _ = recall(originals)
    assert {kind: part for kind, part in found.items() if part < 0.95} == {}
    assert false < 0.01


def test_what_lies_in_register_and_differs_is_two_pictures() -> None:
    """Another colour, another hand of the clock, another thing on the same ground."""

    def clock(hour: int, face: str = "white") -> Image.Image:
        picture = Image.new("RGB", (256, 256), "lightblue")
        pen = ImageDraw.Draw(picture)
        pen.ellipse((20, 20, 236, 236), fill=face, outline="black", width=8)
        angle = hour / 12 * 2 * np.pi
        pen.line((128, 128, 128 + 80 * np.sin(angle), 128 - 80 * np.cos(angle)), fill="black", width=14)
        return picture

    hashes, thumbs = seen([clock(2), clock(5), clock(8), clock(2, "orange"), clock(2, "yellow")])
    assert find_duplicates(hashes, thumbs).tolist() == []


def test_one_thing_that_differs_makes_two_pictures() -> None:
    """A patch of a twelfth of the side, a little brighter: within the limits of a shifted window, but these are not shifted."""
    first = drawn(1)
    second = first.copy()
    box = (100, 60, 124, 84)
    second.paste(first.crop(box).point(lambda value: min(255, value + 34)), box)
    assert find_duplicates(*seen([first, second])).tolist() == []
    assert find_duplicates(*seen([first, recompressed(first)])).tolist() == [[0, 1]]


def test_small_drawings_are_not_one_because_of_their_paper() -> None:
    def paper(seed: int, place: tuple[int, int]) -> Image.Image:
        sheet = Image.new("RGB", (500, 700), "white")
        sheet.paste(drawn(seed, 60), place)
        return sheet

    assert find_duplicates(*seen([paper(1, (50, 50)), paper(2, (50, 50)), paper(1, (300, 600))])).tolist() == [[0, 2]]


def test_candidates_are_those_of_comparing_all_with_all() -> None:
    """The buckets against brute force: every pair that one of PRINTS hashes brings within 5 bits, as the pigeonhole principle promises."""
    rng = np.random.default_rng(5)
    base = rng.integers(0, 2**63, (40, PRINTS), dtype=np.uint64)
    other = base.copy()
    for row, column in itertools.product(range(40), range(PRINTS)):
        for bit in rng.choice(64, int(rng.integers(0, 9)), replace=False):
            other[row, column] ^= np.uint64(1) << np.uint64(bit)
    hashes = np.concatenate([base, other])
    gallery = Gallery.of(hashes, np.zeros((80, THUMB_BYTES), np.uint8))
    found = set()
    for piece in near.PIECES:
        some = near.candidates(gallery, piece)
        found |= set(zip((some.one // PRINTS).tolist(), (some.other // PRINTS).tolist(), strict=True))
    found = {(min(pair), max(pair)) for pair in found}
    brute = {(a, b): int(np.bitwise_count(hashes[a][:, None] ^ hashes[b][None, : len(WINDOWS)]).min()) for a, b in itertools.combinations(range(80), 2)}
    assert {pair for pair, bits in brute.items() if bits <= 5} <= found
    assert found <= {pair for pair, bits in brute.items() if bits <= BITS}


def test_the_hash_is_imagehashs_own() -> None:
    """Against `imagehash` called by itself on the marked picture."""
    picture = drawn(3)
    grey = np.asarray(picture.convert("L").resize((64, 64), Image.Resampling.BICUBIC, reducing_gap=2.0), np.float32)
    even = Image.fromarray((grey - grey.mean()) * (40 / grey.std()) + 128).resize((HASHED, HASHED), Image.Resampling.BICUBIC)
    marked = Image.fromarray((np.asarray(even) + pattern()).clip(0, 255).round().astype(np.uint8))
    assert f"{int(prints(picture)[0]):016x}" == str(imagehash.phash(marked))


def test_the_pattern_settles_the_bits_of_what_is_symmetrical() -> None:
    """A ring has nothing at half of the frequencies: a JPEG copy moves many bits of the plain hash, and few of ours."""
    ring = Image.new("RGB", (256, 256), "white")
    ImageDraw.Draw(ring).ellipse((40, 40, 216, 216), outline="black", width=20)
    copy = recompressed(ring)
    plain = imagehash.phash(ring) - imagehash.phash(copy)
    ours = int(np.bitwise_count(prints(ring)[0] ^ prints(copy)[0]))
    assert ours <= 4 and ours < plain


def test_each_stands_beside_what_equals_it_and_not_beside_a_neighbours_neighbour() -> None:
    """A row of drawings, each equal to the next: the best takes in its two neighbours, and no more."""

    def chain(numbers: np.ndarray, same: float) -> np.ndarray:
        there = set(numbers.tolist())
        return np.array([(n, n + 1) for n in range(6) if {n, n + 1} <= there], np.int64).reshape(-1, 2)

    worth = np.array([3, 4, 5, 0, 6, 1, 2])  # 3 is the best, then 5, then 6
    assert gathered(worth, chain) == {2: 3, 4: 3, 6: 5, 1: 0}
    assert gathered(np.arange(6), chain) == {1: 0, 3: 2, 5: 4}


def test_a_crowd_of_copies_becomes_one() -> None:
    """More copies than one picture is compared with: those that stand for others are compared again."""
    versions = [recompressed(drawn(1), quality) for quality in range(20, 95)]
    hashes, thumbs = seen(versions)
    groups = gathered(np.arange(len(versions)), lambda numbers, same: numbers[find_duplicates(hashes[numbers], thumbs[numbers], same)])
    assert set(groups.values()) == {0} and len(groups) == len(versions) - 1


def test_a_full_bucket_is_looked_into() -> None:
    """Three times CROWD pictures with one hash: every one of them finds some of the others."""
    count = 3 * near.CROWD
    hashes, thumbs = np.full((count, PRINTS), 99, np.uint64), np.tile(np.frombuffer(thumb(drawn(1)), np.uint8), (count, 1))
    assert set(find_duplicates(hashes, thumbs).ravel().tolist()) == set(range(count))


def test_work_grows_no_faster_than_the_pictures() -> None:
    """What is compared closely is at most 2 x NEAREST pairs a picture, however alike all are."""
    rng = np.random.default_rng(0)
    hashes = np.full((150, PRINTS), 12345, np.uint64) ^ (np.uint64(1) << rng.integers(0, 64, (150, PRINTS), dtype=np.uint64))
    gallery = Gallery.of(hashes, rng.integers(120, 130, (150, THUMB_BYTES), dtype=np.uint8))
    found = near.nearest(near.together([near.candidates(gallery, piece) for piece in near.PIECES]))
    assert 150 < len(found.one) <= 2 * near.NEAREST * near.WAYS * 150


def test_nothing_and_one_are_no_duplicates(tmp_path: Path) -> None:
    assert find_duplicates(np.zeros((0, PRINTS), np.uint64), np.zeros((0, THUMB_BYTES), np.uint8)).shape == (0, 2)
    drawn(1).save(tmp_path / "a.png")
    one = look_at(tmp_path / "a.png")
    assert one.prints is not None and one.thumb is not None
    assert find_duplicates(one.prints[None], np.frombuffer(one.thumb, np.uint8)[None]).shape == (0, 2)
