"""Which checks are made, how their limits are set, and what the rules of thumb say of well-known cases."""

from __future__ import annotations

from typing import Any

import pytest

from darkroom.data.checks.quality import Compression, Dpi
from darkroom.data.checks.shape import Aspect, Side
from darkroom.data.look import Look
from darkroom.data.screening import Screening
from darkroom.errors import RecipeError


def look(**given: Any) -> Look:
    return Look.from_dict({"format": "JPEG", "mode": "RGB", "width": 1000, "height": 1000, "bytes": 200_000, "quality": 90, "sharpness": 4.0} | given)


def test_all_reasons_are_given_at_once() -> None:
    found = Screening().judge(look(width=300, height=1000, dpi=72, sharpness=0.1))
    assert [kind for kind, _ in found.reasons] == ["side", "aspect", "dpi", "sharpness"]
    assert found.figures["shorter_side"] == 300 and found.figures["dpi"] == 72


def test_a_file_that_is_no_picture_has_one_reason() -> None:
    assert [kind for kind, _ in Screening().judge(Look(fault="unreadable", told="is not a picture.")).reasons] == ["readable"]


def test_a_missing_dpi_is_unknown_and_no_failure() -> None:
    found = Screening().judge(look(dpi=0))
    assert found.reasons == () and found.unknown == ("dpi",) and "dpi" not in found.figures


@pytest.mark.parametrize(("stated", "passes"), [(95.99, True), (96, True), (95.0, False), (72, False), (300, True)])
def test_dpi_is_rounded_since_png_counts_dots_a_metre(stated: float, passes: bool) -> None:
    assert (Dpi().judge(look(dpi=stated)) is None) == passes


@pytest.mark.parametrize(("size", "passes"), [((667, 333), True), ((2000, 1000), True), ((1000, 2010), False), ((1000, 1000), True)])
def test_aspect_is_measured_as_nearly_as_pixels_can(size: tuple[int, int], passes: bool) -> None:
    assert (Aspect().judge(look(width=size[0], height=size[1])) is None) == passes


def test_a_large_picture_is_reduced_and_rejected_only_on_demand() -> None:
    large = look(width=4032, height=3024)
    assert Screening().judge(large).notes == ("side",) and Screening().judge(large).reasons == ()
    found = Side(larger="reject").judge(large)
    assert found is not None and found.word == "reject" and "4032" in found.reason and "1024" in found.reason


@pytest.mark.parametrize(
    ("given", "passes"),
    [
        ({"bytes": 200_000, "quality": 90}, True),  # a good JPEG photo: 0.2 byte a pixel, which the guide's 0.5 would reject
        ({"bytes": 20_000, "quality": 90}, True),  # the red cartoon of the DreamBooth set: plain, not squeezed
        ({"bytes": 40_000, "quality": 30}, False),
        ({"format": "MPO", "bytes": 40_000, "quality": 30}, False),
        ({"format": "PNG", "quality": 0, "bytes": 1_300_000}, True),  # what SD's own PNGs have
        ({"format": "PNG", "quality": 0, "bytes": 400_000}, False),
        ({"format": "PNG", "quality": 0, "mode": "L", "bytes": 400_000}, True),  # one channel of three
        ({"format": "WEBP", "quality": 0, "bytes": 50_000}, True),
        ({"format": "WEBP", "quality": 0, "bytes": 40_000}, False),
        ({"format": "AVIF", "quality": 0, "bytes": 40_000}, True),
    ],
)
def test_compression_knows_the_format(given: dict[str, Any], passes: bool) -> None:
    assert (Compression().judge(look(**given)) is None) == passes


@pytest.mark.parametrize("given", [{"format": "BMP"}, {"format": "GIF"}, {"format": "WEBP", "lossless": True}])
def test_where_size_tells_nothing_compression_is_unknown(given: dict[str, Any]) -> None:
    found = Compression().judge(look(bytes=10, quality=0, **given))
    assert found is not None and found.word == "unknown"


def test_settings_go_on_from_those_before() -> None:
    first = Screening().but(["side.smallest=64", "sharpness.least=0.3"], also=["faces"], without=["dpi"])
    second = Screening.of(first.tree()).but(["aspect.most=3"])
    assert second.tree()["side"]["smallest"] == 64 and "faces" in second.tree() and "dpi" not in second.tree() and second.tree()["aspect"]["most"] == 3
    assert second.measures == ("faces",)
    assert Screening().but(without=["duplicate"]).duplicates is None


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"settings": ["side.smalest=3"]}, 'Did you mean "smallest"'),
        ({"settings": ["sied.smallest=3"]}, 'Did you mean "side"'),
        ({"settings": ["side=3"]}, "name one of its limits"),
        ({"settings": ["side.smallest=small"]}, "small"),
        ({"settings": ["plain.most=2"]}, "less than or equal to 1"),
        ({"also": ["tekst"]}, 'Did you mean "text"'),
        ({"without": ["everything"]}, "Known: "),
    ],
)
def test_a_wrong_setting_says_what_would_be_right(changes: dict[str, list[str]], says: str) -> None:
    with pytest.raises(RecipeError, match=says):
        Screening().but(**changes)
