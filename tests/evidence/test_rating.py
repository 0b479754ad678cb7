"""A blind rating is blind, balanced, the same when it is made again, and loses no answer."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from PIL import Image

from darkroom.errors import OutputError, RecipeError, RunError
from darkroom.evidence.answers import answers_file, append, raters, read_answers
from darkroom.evidence.rating import APART, Session, Shown, answer, next_pair, open_session, undo
from support.ratings import PROMPTS, finished, prefers, rate_all


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    finished(tmp_path)
    return tmp_path


def test_made_again_it_is_the_same_and_another_raters_is_another(folder: Path) -> None:
    ann, again, bob = open_session(folder, "ann"), open_session(folder, "ann"), open_session(folder, "bob")
    assert ann == again
    assert [pair.id for pair in ann.pairs] != [pair.id for pair in bob.pairs] and not {pair.id for pair in ann.pairs} & {pair.id for pair in bob.pairs}
    assert {pair.prompt + str(pair.seed) for pair in ann.pairs} == {pair.prompt + str(pair.seed) for pair in bob.pairs}
    assert open_session(folder, "ann", seed=1).pairs != ann.pairs


def test_raters_with_fewer_pairs_see_the_same_ones(folder: Path) -> None:
    def seen(rater: str, pairs: int) -> set[tuple[str, int]]:
        return {(pair.prompt, pair.seed) for pair in open_session(folder, rater, pairs).pairs}

    assert seen("ann", 7) == seen("bob", 7) < seen("cas", 12)


@pytest.mark.parametrize("arms", [("base", "a"), ("base", "a", "b"), ("base", "a", "b", "c", "d", "e", "f")])
def test_arms_prompts_and_sides_are_balanced_wherever_it_is_cut(tmp_path: Path, arms: tuple[str, ...]) -> None:
    finished(tmp_path, arms)
    for count in (6, 12, 18):
        first = [pair for pair in open_session(tmp_path, "ann", count).pairs if not pair.again]
        assert len(first) == count and len({(pair.prompt, pair.seed, *sorted((pair.left, pair.right))) for pair in first}) == count
        against = Counter(tuple(sorted((pair.left, pair.right))) for pair in first)
        prompts = Counter(pair.prompt for pair in first)
        assert max(against.values()) - min([against[tuple(sorted(("base", arm)))] for arm in arms[1:]]) <= 1
        assert set(prompts.values()) == {count // len(PROMPTS)}
        for arm in arms[1:]:
            sides = Counter("left" if pair.left == arm else "right" for pair in first if arm in (pair.left, pair.right))
            assert abs(sides["left"] - sides["right"]) <= 1


def test_every_pair_is_shown_when_all_are_asked_for(tmp_path: Path) -> None:
    """Six contrasts and six prompts share a factor: the square must be shifted, or pairs would come twice and others never."""
    finished(tmp_path, ("base", "a", "b", "c", "d", "e", "f"))
    first = [pair for pair in open_session(tmp_path, "ann", 1000).pairs if not pair.again]
    assert len({(pair.prompt, pair.seed, *sorted((pair.left, pair.right))) for pair in first}) == len(first) == 6 * 6 * 3


def test_orders_and_sides_are_drawn(tmp_path: Path) -> None:
    """Over 60 raters each arm opens on the left about half of the time, and each prompt comes first sometimes."""
    finished(tmp_path)
    first = [open_session(tmp_path, f"rater{i}", 6).pairs[0] for i in range(60)]
    assert 18 <= sum(pair.left == "adapter-9" for pair in first) <= 42
    assert {pair.prompt for pair in first} == set(PROMPTS)


def test_a_tenth_comes_again_with_swapped_sides_and_not_at_once(tmp_path: Path) -> None:
    finished(tmp_path, seeds=(1, 2, 3, 4, 5, 6, 7))
    pairs = open_session(tmp_path, "ann", 40).pairs
    again = [(place, pair) for place, pair in enumerate(pairs) if pair.again]
    assert len(pairs) == 44 and len(again) == 4
    for place, pair in again:
        (before,) = (i for i, other in enumerate(pairs) if not other.again and (other.prompt, other.seed) == (pair.prompt, pair.seed))
        assert (pairs[before].left, pairs[before].files) == (pair.right, pair.files[::-1])
        assert sum(not other.again for other in pairs[before + 1 : place]) >= APART - 1
        assert pairs[before].id != pair.id


def test_the_same_prompt_and_seed_on_both_sides(folder: Path) -> None:
    for pair in open_session(folder, "ann").pairs:
        assert [Path(file).name for file in pair.files] == [Path(pair.files[0]).name] * 2
        assert {pair.left.replace(" ", "-"), pair.right.replace(" ", "-")} == {Path(file).parent.name for file in pair.files}


def test_a_rater_is_told_nothing_of_the_arms(folder: Path) -> None:
    session = open_session(folder, "ann")
    shown = next_pair(session)
    assert shown is not None and asdict(shown).keys() == {"id", "prompt", "number", "total"}
    assert "adapter-9" not in repr(shown) + repr(session) and "plain base" not in repr(shown) + repr(session)


def test_faulty_missing_and_equal_pictures_are_not_shown(tmp_path: Path) -> None:
    result = finished(tmp_path)
    rows = {(row["arm"], row["prompt"], row["seed"]): row for row in result["pictures"]}
    rows["adapter-9", "a cat", 1]["fault"] = "black"
    rows["adapter-9", "a cat", 2]["pixels"] = rows["plain base", "a cat", 2]["pixels"]
    (tmp_path / rows["plain base", "a cat", 3]["file"]).unlink()
    (tmp_path / "trial.json").write_text(json.dumps(result), encoding="utf-8")
    seen = {(pair.prompt, pair.seed) for pair in open_session(tmp_path, "ann", 100).pairs}
    assert len(seen) == 15 and not any(prompt == "a cat" for prompt, _ in seen)


def test_it_goes_on_where_it_stopped(folder: Path) -> None:
    session = open_session(folder, "ann", 10)
    assert rate_all(session, prefers("adapter-9"), 4) == 4
    later = open_session(folder, "ann", 10)
    assert next_pair(later) == Shown(later.pairs[4].id, later.pairs[4].prompt, 5, 11)
    assert rate_all(later, prefers("adapter-9")) == 7 and next_pair(later) is None


def test_undo_is_a_line_and_the_file_only_grows(folder: Path) -> None:
    session, path = open_session(folder, "ann", 5), answers_file(folder, "ann")
    assert undo(session) is None and not path.exists()
    sizes = []
    rate_all(session, prefers("adapter-9"), 2)
    before = path.read_bytes()
    assert undo(session) == session.pairs[1].id and undo(session) == session.pairs[0].id and undo(session) is None
    sizes.append(path.read_bytes())
    assert sizes[0].startswith(before) and [json.loads(row).get("undo") for row in sizes[0].splitlines()[2:]] == [session.pairs[1].id, session.pairs[0].id]
    answer(session, session.pairs[0].id, "tie")
    found = read_answers(path)
    assert [said["answer"] for said in found.standing.values()] == ["tie"] and found.undone == 2 and path.read_bytes().startswith(sizes[0])


def test_a_half_line_is_ignored_and_the_next_answer_is_not_glued_to_it(folder: Path) -> None:
    session, path = open_session(folder, "ann", 5), answers_file(folder, "ann")
    rate_all(session, prefers("adapter-9"), 2)
    whole = path.read_bytes()
    path.write_bytes(whole + whole.splitlines()[1][:40])
    assert len(read_answers(path).standing) == 2 and read_answers(path).broken == 1
    answer(session, session.pairs[2].id, "left")
    assert list(read_answers(path).standing) == [pair.id for pair in session.pairs[:3]]
    assert path.read_bytes().startswith(whole)


@pytest.mark.parametrize(
    "row",
    [
        "[]",
        "1",
        '{"pair": 3}',
        '{"pair": "x", "answer": "up"}',
        '{"undo": 7}',
        "[" * 3000,
        "\x00",
        '{"pair": "x", "answer": "left", "left": "a", "right": "a", "prompt": "", "seal": "", "seed": 1, "again": false}',
    ],
)
def test_lines_that_are_no_answers_are_counted(folder: Path, row: str) -> None:
    path = answers_file(folder, "ann")
    path.parent.mkdir()
    path.write_text(row + "\n", encoding="utf-8")
    found = read_answers(path)
    assert found.standing == {} and found.broken == 1


def test_changed_pictures_refuse_their_answers(folder: Path) -> None:
    session = open_session(folder, "ann", 5)
    pair = session.pairs[0]
    Image.new("RGB", (8, 8), (1, 2, 3)).save(folder / pair.files[0])
    with pytest.raises(RunError, match="were changed"):
        answer(session, pair.id, "left")
    assert not answers_file(folder, "ann").exists()


def test_what_is_no_answer(folder: Path) -> None:
    session = open_session(folder, "ann", 5)
    with pytest.raises(RecipeError, match="left, right, tie"):
        answer(session, session.pairs[0].id, "both")  # type: ignore[arg-type]
    with pytest.raises(RunError, match="none of ann's"):
        answer(session, "beef", "left")
    answer(session, session.pairs[0].id, "left")
    with pytest.raises(RunError, match="answered already"):
        answer(session, session.pairs[0].id, "right")


@pytest.mark.parametrize("name", ["", "Ann", "../ann", "a/b", "con", "ann.jsonl", "-ann", "a" * 41, "ä", "ann\n"])
def test_names_that_are_no_files(folder: Path, name: str) -> None:
    with pytest.raises(RecipeError, match="small letters"):
        open_session(folder, name)


def test_folders_that_cannot_be_rated(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no trial's folder"):
        open_session(tmp_path, "ann")
    result = finished(tmp_path)
    with pytest.raises(RecipeError, match="at least 1"):
        open_session(tmp_path, "ann", 0)
    for row in result["pictures"]:
        (tmp_path / row["file"]).unlink()
    with pytest.raises(RunError, match="no two pictures"):
        open_session(tmp_path, "ann")


def test_a_place_that_cannot_be_written(folder: Path) -> None:
    (folder / "ratings").write_text("a file in the way")
    session: Session = open_session(folder, "ann", 2)
    with pytest.raises(OutputError, match="could not be written"):
        append(answers_file(folder, "ann"), [{"undo": session.pairs[0].id}])
    assert raters(folder) == []
