"""A picture's caption in an epoch is a pure function; shares, kept tags and dropouts are what the recipe says."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from darkroom.data.wording import Wording, count_mix, framed, shares, split, worded
from darkroom.errors import DatasetError, RecipeError

EPOCHS = 4000
BOTH = {"original": "a cat", "blip": "a grey cat on a sofa", "wd": "cat, sofa"}
TAGS = "TOK cat, sofa, grey fur, indoors, window, sleeping"
WORD = st.text(alphabet="abcdef ", min_size=1, max_size=6).map(str.strip).filter(bool)


def said(wording: Wording, caption: str = TAGS, captions: dict[str, str] | None = None, epochs: int = EPOCHS, **rest: str) -> list[str]:
    return [worded(captions or {}, caption, wording, 7, epoch, "sha", **rest) for epoch in range(epochs)]


def plausible(hits: int, of: int, rate: float) -> bool:
    """Not one of the worst in a million of what chance gives."""
    return binomtest(hits, of, rate).pvalue > 1e-6


def test_the_defaults_change_nothing() -> None:
    odd = "  Two  blanks,,  and ; signs "
    assert worded(BOTH, "a cat", Wording(), 0, 3, "sha") == "a cat"
    assert worded(BOTH, odd, Wording(), 0, 3, "sha") == odd.strip()


def test_captions_are_mixed_by_their_shares() -> None:
    wording = Wording(mix={"blip": 0.95, "original": 0.05})
    counts = Counter(said(wording, captions=BOTH))
    assert counts.keys() == {BOTH["blip"], BOTH["original"]}
    assert plausible(counts[BOTH["original"]], EPOCHS, 0.05), counts


def test_many_pictures_of_one_epoch_are_mixed_as_well() -> None:
    wording = Wording(mix={"blip": 0.95, "original": 0.05})
    hits = sum(worded(BOTH, "x", wording, 7, 0, f"sha{number}") == BOTH["original"] for number in range(EPOCHS))
    assert plausible(hits, EPOCHS, 0.05)


def test_who_wrote_none_leaves_their_share_to_the_others() -> None:
    wording = Wording(mix={"blip": 0.6, "wd": 0.3, "original": 0.1})
    assert shares({"wd": "w", "original": "o", "blip": ""}, "x", wording) == [("o", pytest.approx(0.25)), ("w", pytest.approx(0.75))]
    assert set(said(wording, "the template", captions={"vlm": "v"}, epochs=50)) == {"the template"}


def test_the_order_of_the_recipe_and_of_the_captions_does_not_matter() -> None:
    one, other = Wording(mix={"blip": 0.5, "original": 0.3, "wd": 0.2}), Wording(mix={"wd": 0.2, "original": 0.3, "blip": 0.5})
    backwards = dict(reversed(BOTH.items()))
    assert [worded(BOTH, "x", one, 1, e, "s") for e in range(200)] == [worded(backwards, "x", other, 1, e, "s") for e in range(200)]


def test_no_draw_depends_on_what_was_drawn_before() -> None:
    wording = Wording(mix={"blip": 0.5, "original": 0.5}, shuffle=True, tag_dropout=0.3, dropout=0.2)
    calls = [(epoch, sample) for epoch in range(20) for sample in ("a", "a#2", "b")]
    forward = {call: worded(BOTH, TAGS, wording, 3, *call) for call in calls}
    assert {call: worded(BOTH, TAGS, wording, 3, *call) for call in reversed(calls)} == forward
    assert any(forward[e, "a"] != forward[e, "a#2"] for e in range(20)), "a repeat has draws of its own"


def test_another_seed_is_another_wording() -> None:
    wording = Wording(shuffle=True)
    assert [worded({}, TAGS, wording, 1, e, "s") for e in range(9)] != [worded({}, TAGS, wording, 2, e, "s") for e in range(9)]


def test_captions_are_dropped_as_often_as_said() -> None:
    counts = Counter(said(Wording(dropout=0.1, prefix="by me:"), "a cat"))
    assert counts.keys() == {"", "by me: a cat"}, "nothing is put in front of an empty caption"
    assert plausible(counts[""], EPOCHS, 0.1)
    assert set(said(Wording(dropout=1.0), epochs=50)) == {""}


def test_dropping_and_mixing_are_drawn_apart() -> None:
    """A common die would always drop the same writer's captions."""
    wording = Wording(mix={"blip": 0.5, "original": 0.5}, dropout=0.5)
    counts = Counter(said(wording, captions=BOTH))
    assert plausible(counts[BOTH["blip"]], EPOCHS, 0.25)
    assert plausible(counts[BOTH["original"]], EPOCHS, 0.25)


def test_every_order_of_the_tags_comes_equally_often() -> None:
    counts = Counter(said(Wording(shuffle=True, keep_tags=1), "TOK cat, a, b, c"))
    assert len(counts) == 6
    assert all(text.startswith("TOK cat, ") for text in counts)
    assert all(plausible(count, EPOCHS, 1 / 6) for count in counts.values()), counts


def test_tags_are_dropped_as_often_as_said_and_never_the_kept() -> None:
    wording = Wording(tag_dropout=0.25, keep_tags=2)
    counts = Counter(tag for text in said(wording) for tag in text.split(", "))
    assert counts["TOK cat"] == counts["sofa"] == EPOCHS
    assert all(plausible(counts[tag], EPOCHS, 0.75) for tag in ("grey fur", "indoors", "window", "sleeping")), counts


def test_the_trigger_is_never_dropped_wherever_it_stands() -> None:
    texts = said(Wording(tag_dropout=1.0, shuffle=True), "sofa, a TOK cat, TOKYO", epochs=50, trigger="TOK")
    assert set(texts) == {"a TOK cat"}, "TOKYO is another word"


def test_without_shuffle_the_order_is_kept() -> None:
    order = TAGS.split(", ")
    for text in said(Wording(tag_dropout=0.5), epochs=200):
        left = text.split(", ") if text else []
        assert left == [tag for tag in order if tag in left]


def test_a_keep_separator_wins_over_the_number() -> None:
    wording = Wording(keep_separator="|||", keep_tags=1, shuffle=True)
    assert split("TOK, cat ||| a, b ||| best", wording) == (["TOK", "cat"], ["a", "b"], ["best"])
    assert split("TOK, cat, a", wording) == (["TOK"], ["cat", "a"], [])
    assert set(said(wording, "TOK, cat ||| a, b ||| best", epochs=60)) == {"TOK, cat, a, b, best", "TOK, cat, b, a, best"}
    assert worded({}, "TOK ||| a", Wording(keep_separator="|||"), 0, 0, "s") == "TOK, a", "the mark itself is never learned"


@pytest.mark.parametrize(
    ("parts", "whole"),
    [
        (("a", "by x,", "in oil"), "by x, a in oil"),
        (("a", "", ""), "a"),
        (("", "by x", ""), "by x"),
        ((" a ", " ", "b "), "a b"),
    ],
)  # fmt: skip
def test_frames(parts: tuple[str, str, str], whole: str) -> None:
    assert framed(*parts) == whole


@given(
    tags=st.lists(WORD, min_size=1, max_size=8), keep=st.integers(0, 9), rate=st.sampled_from([0.0, 0.3, 1.0]), shuffle=st.booleans(),
    seed=st.integers(0, 99), epoch=st.integers(0, 99), separator=st.sampled_from([",", ";", " | "]),
)  # fmt: skip
def test_what_is_learned_is_what_was_written(tags: list[str], keep: int, rate: float, shuffle: bool, seed: int, epoch: int, separator: str) -> None:
    """Kept tags stand first in their order; no tag is invented or doubled; without dropout none is lost."""
    wording = Wording(keep_tags=keep, tag_dropout=rate, shuffle=shuffle, separator=separator)
    text = worded({}, separator.join(tags), wording, seed, epoch, "sha")
    found = [tag.strip() for tag in text.split(separator.strip())] if text else []
    if not wording.works_on_tags:
        assert text == separator.join(tags)
        return
    assert found[: min(keep, len(tags))] == tags[:keep]
    assert not Counter(found) - Counter(tags)
    if rate == 0:
        assert sorted(found) == sorted(tags)
    if rate == 1:
        assert found == tags[:keep]


def test_a_mix_that_does_not_come_to_one_is_refused() -> None:
    with pytest.raises(RecipeError, match=r"blip = 0\.95, original = 0\.5} comes to 1\.45"):
        Wording.from_tree({"mix": {"blip": 0.95, "original": 0.5}}, "a.toml")
    with pytest.raises(RecipeError, match="between 0 and 1"):
        Wording.from_tree({"mix": {"blip": 1.5, "original": -0.5}}, "a.toml")


def test_a_name_that_nobody_has_is_named() -> None:
    wording = Wording(mix={"blip": 0.95, "orignal": 0.05})
    with pytest.raises(DatasetError, match=r'names "orignal".*Did you mean "original"\?'):
        count_mix(wording, [BOTH, BOTH])
    with pytest.raises(DatasetError, match="No picture has a caption"):
        count_mix(wording, [{}])
    assert count_mix(Wording(mix={"blip": 0.95, "original": 0.05}), [BOTH, {"blip": "b"}]) == {"blip": 2, "original": 1}


def test_it_comes_back_from_toml() -> None:
    import tomllib

    wording = Wording(mix={"blip": 0.95, "original": 0.05}, shuffle=True, keep_tags=2, prefix="by x,")
    assert Wording.from_tree(tomllib.loads(wording.to_toml()), "text") == wording
