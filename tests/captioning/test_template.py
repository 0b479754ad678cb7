"""A sentence with names in braces: every name is filled, or the person is told which cannot be."""

from __future__ import annotations

import pytest

from darkroom.captioning import Exhibit, Template, captioner
from darkroom.data.manifest import Row
from darkroom.errors import DatasetError, RecipeError

ROWS = [
    Row("posters/alien.jpg", captions={"original": "a ship"}, extra={"genre": "horror", "title": "Alien"}),
    Row("up.jpg", captions={"original": "a house", "blip": "a house with balloons"}, extra={"genre": "", "title": "Up"}),
]


def written(template: str, rows: list[Row], subject: str = "") -> list[str]:
    return Template(template=template, subject=subject).open("cpu", rows).write([Exhibit(row) for row in rows])


def test_columns_captions_names_and_the_subject() -> None:
    assert written("{title}: {original}", ROWS) == ["Alien: a ship", "Up: a house"]
    assert written("a photo of {subject}", ROWS, " TOK cat ") == ["a photo of TOK cat"] * 2
    assert written("{folder}/{name}, {{as it is}}", ROWS[:1]) == ["posters/alien, {as it is}"]


def test_a_column_wins_over_what_files_are_called() -> None:
    assert written("{name}", [Row("a.jpg", extra={"name": "Fritz"})]) == ["Fritz"]
    assert written("a {subject}", [Row("a.jpg", extra={"subject": "dog"})]) == ["a dog"]


def test_what_a_row_does_not_have_is_that_rows_failure() -> None:
    with pytest.raises(DatasetError, match=r"up\.jpg: has nothing to put for \{genre\}"):
        written("a {genre} poster", ROWS)
    with pytest.raises(DatasetError, match=r"alien\.jpg: has nothing to put for \{blip\}"):
        written("{blip}", ROWS)


def test_what_no_row_has_is_told_before_any_is_written() -> None:
    with pytest.raises(RecipeError, match=r'no picture knows "\{gendre\}"\. Did you mean "genre"\? Known: blip, folder, genre,'):
        Template(template="a {gendre} poster").open("cpu", ROWS)
    with pytest.raises(RecipeError, match="wants a subject"):
        Template().open("cpu", ROWS)


@pytest.mark.parametrize("template", ["{", "a {title", "}", "{}", "{0}{title!r}", "{title:>9}", "{title.__class__}", "{title[0]}", ""])
def test_a_sentence_that_cannot_be_read(template: str) -> None:
    with pytest.raises(RecipeError, match="--with template: template = "):
        captioner("template", {"template": template})
