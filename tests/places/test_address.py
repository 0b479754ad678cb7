"""What an address is, and that what is wrong with one is said in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from darkroom import places
from darkroom.errors import PlaceError
from darkroom.places.address import name_of, protocol


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://bucket/cats", True), ("S3://bucket/cats", True), ("gs://b", True), ("hf://datasets/u/n", True), ("memory://x", True), ("file:///x", True),
        ("sftp://user@host/x", True), ("C:\\cats", False), ("C:/cats", False), ("C://cats", False), ("https://h/cats.jpg", False), ("http://h", False),
        ("cats", False), ("/cats", False), ("a b://c", False), ("", False), ("a photo of s3://x", False),
    ],
)  # fmt: skip
def test_what_is_an_address(text: str, expected: bool) -> None:
    assert places.is_address(text) is expected


def test_a_path_is_none() -> None:
    assert not places.is_address(Path("s3://bucket/cats"))


def test_values_that_are_no_places_are_left_alone() -> None:
    assert places.is_known("s3://b/x")
    assert not places.is_known("ray://127.0.0.1:10001")
    assert places.at_hand("stabilityai/sdxl") == "stabilityai/sdxl"


@pytest.mark.parametrize(
    ("address", "name"), [("s3://b/a/cats/", "cats"), ("s3://bucket", "bucket"), ("memory://a/b:c", "b_c"), ("s3://b/x.safetensors", "x.safetensors")]
)
def test_a_copy_is_called_as_its_address_ends(address: str, name: str) -> None:
    assert name_of(address) == name
    assert protocol(address) == address.partition(":")[0]


def test_a_file_address_is_the_path_itself(tmp_path: Path) -> None:
    (tmp_path / "a b.txt").write_text("x")
    assert places.near(f"file://{tmp_path}") == tmp_path
    assert places.near((tmp_path / "a b.txt").as_uri()).read_text() == "x"
    with places.writing(f"file://{tmp_path}/new") as path:
        assert path == tmp_path / "new"


@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("s4://bucket/x", ['"s4://" is not known', "Known are s3, gs"]),
        ("memmory://x", ['Did you mean "memory"']),
        ("oci://bucket/x", ["a package that is not installed", "ocifs"]),
        ("memory://nothing/here", ["there is nothing there"]),
    ],
)  # fmt: skip
def test_what_cannot_be_opened_is_said(address: str, words: list[str]) -> None:
    with pytest.raises(PlaceError) as caught:
        places.near(address)
    assert str(caught.value).startswith(address)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_a_store_without_atomic_writes_is_said() -> None:
    from darkroom.places.store import weakness

    assert not weakness("s3://b/x")
    assert not weakness("memory://b/x")
    assert "no atomic write" in weakness("dropbox://b/x")
