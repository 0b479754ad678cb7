"""No copy of what is learned from is held out, the amount is what was asked, and pictures that come later move none that were there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from darkroom.data.manifest import Row
from darkroom.data.split import clusters, held_out_count, sides, words
from darkroom.errors import DatasetError, RecipeError


def plain(count: int, start: int = 0) -> list[Row]:
    return [Row(f"{number:04d}.png", f"sha-{number}") for number in range(start, start + count)]


@st.composite
def datasets(draw: st.DrawFn) -> list[Row]:
    """Rows with copies by cluster, by bytes, both, and some rejected."""
    count = draw(st.integers(12, 60))
    found = []
    for number in range(count):
        best = draw(st.integers(0, number))
        near = draw(st.integers(0, 9)) < 2
        sha = draw(st.integers(0, number)) if draw(st.integers(0, 9)) == 0 else number
        verdict = "reject" if draw(st.integers(0, 9)) == 0 else "keep"
        found.append(Row(f"{number:03d}.png", f"sha-{sha}", cluster=f"{best:03d}.png" if near else "", verdict=verdict))
    return found


@given(datasets(), st.integers(0, 5))
@settings(max_examples=100)
def test_no_copy_leaks(rows: list[Row], seed: int) -> None:
    try:
        found = sides(rows, "20%", seed)
    except DatasetError:
        return  # nearly everything is a copy of everything
    by_sha: dict[str, set[str]] = {}
    by_cluster: dict[str, set[str]] = {}
    for row in rows:
        if row.kept:
            by_sha.setdefault(row.sha256, set()).add(found.of[row.file])
            by_cluster.setdefault(row.cluster or row.file, set()).add(found.of[row.file])
            by_cluster.setdefault(row.file, set()).add(found.of[row.file])
    assert all(len(sides_) == 1 for sides_ in [*by_sha.values(), *by_cluster.values()])
    kept = [row for row in rows if row.kept]
    assert found.held_out == sum(found.of[row.file] == "held_out" for row in kept) >= 1
    assert found.held_out + found.train == len(kept)
    assert found.held_out * 2 <= len(kept)


@given(st.integers(10, 300), st.integers(0, 5), st.integers(1, 200))
def test_later_pictures_move_none(count: int, seed: int, more: int) -> None:
    before = plain(count)
    first = sides(before, "0.1", seed)
    assert first.held_out == max(1, round(count / 10))
    known = [row.but(split=first.of[row.file]) for row in before]
    later = sides([*known, *plain(more, count)], "0.1", seed)
    assert {row.file: later.of[row.file] for row in before} == first.of
    assert later.held_out == max(1, round((count + more) / 10)) and not later.moved


def test_a_split_is_the_same_whatever_the_files_are_called_or_ordered() -> None:
    rows = plain(40)
    renamed = [row.but(file=f"x/{row.sha256}.png") for row in reversed(rows)]
    first, second = sides(rows, "8", 1), sides(renamed, "8", 1)
    assert {row.sha256: first.of[row.file] for row in rows} == {row.sha256: second.of[row.file] for row in renamed}
    assert sides(rows, "8", 1) == first and sides(rows, "8", 2) != first


def test_a_copy_that_comes_later_goes_where_its_picture_is() -> None:
    rows = plain(20)
    first = sides(rows, "0.2", 0)
    held = next(row for row in rows if first.of[row.file] == "held_out")
    known = [row.but(split=first.of[row.file]) for row in rows]
    copies = [Row("copy.png", held.sha256), Row("near.png", "other", cluster=held.file)]
    later = sides([*known, *copies], "0.2", 0)
    assert later.of["copy.png"] == later.of["near.png"] == "held_out"


def test_a_cluster_on_both_sides_is_learned_from() -> None:
    """Screening found two of before to be copies: the held-out one may not stay, for its copy may have been learned from."""
    rows = [row.but(split="train" if number else "held_out") for number, row in enumerate(plain(10))]
    rows[9] = rows[9].but(cluster=rows[0].file)
    rows += plain(5, 50)
    found = sides(rows, "2", 0)
    assert found.of[rows[0].file] == "train" and found.moved == (rows[0].file,) and found.held_out == 2
    assert any("copies of them are" in word for word in words(found, True))


def test_amounts() -> None:
    assert [held_out_count(text, 50) for text in ("0.1", "10%", "7", "0", "0.001", "0.0", "50 %")] == [5, 5, 7, 0, 1, 0, 25]
    for wrong in ("", "a", "-1", "0.6", "80%", "1e9", "nan"):
        with pytest.raises(RecipeError, match="--held-out"):
            held_out_count(wrong, 50)


@pytest.mark.parametrize(
    ("rows", "amount", "said"),
    [
        (plain(1), "1", "1 pictures are kept"),
        ([Row("a.png", "s"), Row("b.png", "s")], "1", "copies of one another"),
        (plain(10), "6", "more than half"),
        ([Row(f"{n}.png", f"{n}", cluster="0.png") for n in range(9)] + plain(1), "1", ""),
    ],
)
def test_sets_too_small_say_so(rows: list[Row], amount: str, said: str) -> None:
    if said:
        with pytest.raises(DatasetError, match=said):
            sides(rows, amount, 0)
    else:
        found = sides(rows, amount, 0)
        assert found.held_out == 1 and found.of["0000.png"] == "held_out", "the one that is no copy"


def test_rejected_pictures_count_for_nothing_but_keep_to_their_cluster() -> None:
    rows = [*plain(10), Row("bad.png", "bad", verdict="reject"), Row("copy.png", "c", verdict="reject", cluster="0003.png")]
    found = sides(rows, "3", 0)
    assert found.held_out == 3 and found.of["bad.png"] == "" and found.of["copy.png"] == found.of["0003.png"]


def test_nothing_is_held_out_any_more() -> None:
    rows = [row.but(split="held_out") for row in plain(4)]
    assert set(sides(rows, "0", 0).of.values()) == {""}


def test_words_for_tiny_and_unscreened_sets() -> None:
    told = words(sides(plain(4), "1", 0), screened=False)
    assert any("3 pictures are left" in word for word in told) and any("not screened" in word for word in told)
    assert words(sides(plain(40), "4", 0), screened=True) == []


def test_a_hundred_thousand_in_bonds_of_any_length() -> None:
    """A chain of copies a-b-c-... is one cluster, without recursion."""
    rows = [Row(f"{n:06d}.png", f"{n}", cluster=f"{n - 1:06d}.png" if n else "") for n in range(30_000)]
    assert len(clusters(rows)) == 1
