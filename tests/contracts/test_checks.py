"""Every check keeps its contract: a pure function of a look, written and read again; its reason says value, limit and way out, and the way out leads out."""

from __future__ import annotations

import re
import tomllib
from typing import Any

import pytest

from darkroom.data.checks import CHECKS, Rule
from darkroom.data.look import Look
from darkroom.data.screening import Screening, limits

GOOD = Look(
    format="JPEG", mode="RGB", width=1024, height=768, bytes=200_000, dpi=300, quality=90, sharpness=4.0, one_colour=0.1, measured={"text": 0.0, "faces": 1.0},
)  # fmt: skip
BAD: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    # what is wrong with the look, limits other than the defaults, and what the reason must name: the value and the limit
    "readable": ({"fault": "truncated", "told": "cannot be read whole (image file is truncated)."}, {}, "truncated"),
    "bomb": ({"fault": "bomb", "told": "12000 x 12000 pixels in a file of 0.2 MB"}, {}, "12000 x 12000"),
    "still": ({"frames": 7}, {}, "7 frames"),
    "side": ({"width": 300}, {}, "300 px.* 512"),
    "aspect": ({"width": 3072}, {}, r"4\.00 : 1.* 2 : 1"),
    "dpi": ({"dpi": 72.009}, {}, "72 .* 96"),
    "compression": ({"bytes": 30_000, "quality": 30}, {}, r"0\.038 bytes a pixel.* JPEG is 0\.0625"),
    "sharpness": ({"sharpness": 0.2}, {}, r"0\.20.* 0\.45"),
    "plain": ({"one_colour": 0.998}, {}, r"99\.8%.* 99\.0%"),
    "text": ({"measured": {"text": 0.2}}, {}, r"20\.0%.* 0\.5%"),
    "faces": ({"measured": {"faces": 3.0}}, {}, "3 faces.* 1"),
    "unwanted": ({"measured": {"unwanted": 0.0}}, {"files": ["sign.png"]}, r"sign\.png"),
}
WAY_OUT = re.compile(r"--(set|keep|without|smallest)\b|Find a|Save (a|the)|Take it out|replace it", re.IGNORECASE)


def but(look: Look, **changes: Any) -> Look:
    return Look.from_dict(look.as_dict() | changes)


@pytest.fixture(params=sorted(CHECKS))
def rule(request: pytest.FixtureRequest) -> type[Rule]:
    return CHECKS[request.param]


def of(rule: type[Rule], **given: Any) -> Any:
    return rule.from_tree(given, "test")


def kind(rule: type[Rule]) -> str:
    return str(rule.model_fields["kind"].default)


def test_a_good_picture_passes(rule: type[Rule]) -> None:
    found = of(rule).judge(GOOD)
    assert found is None or found.word == "note"


def test_a_bad_one_is_rejected_with_value_limit_and_way_out(rule: type[Rule]) -> None:
    assert kind(rule) in BAD, "say here what a picture looks like that this check rejects"
    wrong, given, named = BAD[kind(rule)]
    found = of(rule, **given).judge(but(GOOD, **wrong))
    assert found is not None and found.word == "reject"
    assert re.search(named, found.reason), found.reason
    if kind(rule) not in ("readable", "unwanted"):  # the reader's own words, which test_picture looks at; and --keep is the way
        assert WAY_OUT.search(found.reason), found.reason


def test_judging_is_pure_and_figures_are_numbers(rule: type[Rule]) -> None:
    look = but(GOOD, **BAD[kind(rule)][0])
    check = of(rule, **BAD[kind(rule)][1])
    assert check.judge(look) == check.judge(look)
    if not look.fault:
        assert all(isinstance(value, float) for value in check.figures(look).values())


def test_the_picture_that_the_reason_allows_is_allowed(rule: type[Rule]) -> None:
    """Where the reason names a limit that would let the picture pass, that limit lets it pass."""
    wrong, given, _ = BAD[kind(rule)]
    look = but(GOOD, **wrong)
    reason = of(rule, **given).judge(look).reason
    if found := re.search(rf"--set {kind(rule)}\.(\w+)=([\d.]+\d|\d|\w+)", reason):
        passed = of(rule, **{found[1]: tomllib.loads(f"x = {found[2]}")["x"]}).judge(look)
        assert passed is None or passed.word == "note", reason
    if found := re.search(r"--smallest (\d+)", reason):
        assert of(rule, smallest=int(found[1])).judge(look) is None


def test_every_limit_is_described_and_survives_toml(rule: type[Rule]) -> None:
    assert rule.__doc__ and rule.__doc__ != Rule.__doc__
    assert all(info.description for name, info in rule.model_fields.items() if name != "kind")
    check = of(rule, **BAD[kind(rule)][1])
    assert rule.from_tree(tomllib.loads(check.to_toml()), "test") == check


def test_it_can_be_added_left_out_and_listed(rule: type[Rule]) -> None:
    name = kind(rule)
    assert name in Screening().but(also=[name]).tree()
    assert name not in Screening().but(also=[name]).but(without=[name]).tree()
    assert name in {one["check"] for one in limits()}
    assert (name in Screening().tree()) == rule.wanted
