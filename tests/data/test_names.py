"""A file name from anywhere can be written on every system, is told apart from every other, and does not lead out of its folder."""

from __future__ import annotations

import unicodedata
from itertools import pairwise
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from darkroom.data.names import LONGEST, safe, stem_of, stems_of

ANY = st.text(st.characters(codec=None, exclude_categories=()), max_size=300)
WINDOWS_RESERVES = {"CON", "PRN", "AUX", "NUL", "COM0", "COM1", "COM9", "LPT1", "LPT9", "COM¹", "LPT³", "CONIN$", "CONOUT$"}


def fits_everywhere(name: str) -> bool:
    raw = name.encode()
    return (
        0 < len(raw) <= LONGEST + 12
        and name not in (".", "..")
        and not set(name) & set('<>:"/\\|?*\0')
        and not any(ord(mark) < 32 for mark in name)
        and name == name.rstrip(". ").lstrip(" ")
        and name == unicodedata.normalize("NFC", name)
        and name.partition(".")[0].strip().upper() not in WINDOWS_RESERVES
        and len(PurePosixPath(name).parts) == len(PureWindowsPath(name).parts) == 1
    )


@given(ANY)
def test_any_text_becomes_a_name_that_fits_everywhere(text: str) -> None:
    assert fits_everywhere(safe(text))
    assert safe(safe(text)) == safe(text)


@given(ANY)
def test_any_address_becomes_a_name_that_fits_everywhere(text: str) -> None:
    assert fits_everywhere(stem_of(text))
    assert fits_everywhere(stem_of(f"https://example.org/{text}"))


@given(st.sets(st.text("aAäÄßſK. é\u0301:_1", min_size=1, max_size=4).filter(lambda name: name.strip(".")), max_size=12))
def test_no_two_files_of_a_folder_share_a_name(files: set[str]) -> None:
    stems = stems_of(files)
    alike = sorted(unicodedata.normalize("NFC", stem.casefold()) for stem in stems.values())
    assert all(one != other for one, other in pairwise(alike)), "not on a system that takes ä and Ä for one either"
    assert stems_of(sorted(files, reverse=True)) == stems, "whatever order they come in"


@pytest.mark.parametrize(
    ("reference", "begins"),
    [
        ("https://image.tmdb.org/t/p/w600/abC1.jpg", "abC1-"),
        ("https://example.org/a%20cat%2F..%2F..%2Fetc%2Fpasswd.png?x=1#y", "passwd-"),
        ("https://example.org/caf%C3%A9.jpeg", "café-"),
        ("https://example.org/con.png", "_con-"),
        ("https://example.org/", ""),
        ("photos\\10_cat\\a b.PNG", "a b-"),
        ("../../up.png", "up-"),
    ],
)
def test_names_stay_readable(reference: str, begins: str) -> None:
    stem = stem_of(reference)
    assert stem.startswith(begins) and len(stem) == len(begins) + 10


def test_an_address_has_one_name_and_another_another() -> None:
    assert stem_of("https://a/x.png?size=1") != stem_of("https://a/x.png?size=2")
    assert stem_of("https://a/x.png") == stem_of("https://a/x.png")


def test_names_of_a_folder_are_kept_where_they_can_be() -> None:
    stems = stems_of(["10_TOK cat/IMG_1.JPG", "b.png", "B.jpg"])
    assert stems["10_TOK cat/IMG_1.JPG"] == "10_TOK cat/IMG_1"
    assert stems["b.png"].startswith("b-") and stems["B.jpg"].startswith("B-") and len(stems["B.jpg"]) == 12
