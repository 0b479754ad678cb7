"""Places by the S3 protocol, on a real server on loopback: what goes right, and every way in which a store refuses, in words and without loss."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("moto", reason="moto[server] is a development dependency")
pytest.importorskip("s3fs", reason="s3fs is the extra [s3]")

from darkroom import places
from darkroom.errors import PlaceError
from darkroom.places import address, store
from support import s3


@pytest.fixture(scope="module")
def served() -> Iterator[s3.Gate]:
    with s3.gated("bucket") as gate:
        yield gate


@pytest.fixture
def gate(served: s3.Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[s3.Gate]:
    import s3fs

    monkeypatch.setattr(s3fs.S3FileSystem, "retries", 1)  # botocore tries again below that
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "a"))
    places._compared.clear()
    served.seen.clear()
    yield served
    served.rules.clear()
    for key in s3.keys("bucket"):
        s3.client().delete_object(Bucket="bucket", Key=key)
    s3.forget()


def put(**bodies: bytes) -> None:
    for key, data in bodies.items():
        s3.client().put_object(Bucket="bucket", Key=key.replace("__", "/").replace("_dot_", "."), Body=data)


def test_there_and_back(gate: s3.Gate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with places.writing("s3://bucket/run") as folder:
        folder.mkdir(parents=True)
        (folder / "recipe.toml").write_bytes(b"r")
        (folder / "big.bin").write_bytes(bytes(range(256)) * 50_000)
        (folder / "é ü.txt").write_text("odd names", encoding="utf-8")
    assert s3.keys("bucket") == {"run/recipe.toml": 1, "run/big.bin": 12_800_000, "run/é ü.txt": 9}, "a notice or probe was left, or something is missing"
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "b"))
    places._compared.clear()
    other = places.near("s3://bucket/run")
    assert (other / "big.bin").read_bytes() == bytes(range(256)) * 50_000
    assert (other / "é ü.txt").read_text(encoding="utf-8") == "odd names"


def test_what_is_unchanged_is_not_asked_for_again(gate: s3.Gate) -> None:
    put(cats__1_dot_png=b"one", cats__2_dot_png=b"two")
    places.near("s3://bucket/cats")
    put(cats__2_dot_png=b"TWO")  # as long as before: the etag tells
    gate.seen.clear()
    places._compared.clear()
    assert (places.near("s3://bucket/cats") / "2.png").read_bytes() == b"TWO"
    assert (gate.count("GET", "1.png"), gate.count("GET", "2.png")) == (0, 1)


def test_what_was_written_again_with_the_same_bytes_is_not_sent(gate: s3.Gate) -> None:
    for time_of in (1, 2):
        with places.writing("s3://bucket/run") as folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "trial.json").write_bytes(b"{}")
            (folder / "new.txt").write_bytes(b"new" * time_of)
    assert (gate.count("PUT", "trial.json"), gate.count("PUT", "new.txt")) == (1, 2)


@pytest.mark.parametrize("key", ["cats/../../evil", "cats//1.png", "cats/a\\b.png", "cats/./x"])
def test_names_that_lead_out_of_the_copy_are_refused(gate: s3.Gate, tmp_path: Path, key: str) -> None:
    s3.client().put_object(Bucket="bucket", Key=key, Body=b"evil")
    with pytest.raises(PlaceError, match="which is no path below it"):
        places.near("s3://bucket/cats")
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and path.read_bytes() == b"evil"]


def test_ranges_and_streams(gate: s3.Gate) -> None:
    data = bytes(range(256)) * 80_000  # 20 MB
    put(shard_dot_tar=data)
    assert places.read_range("s3://bucket/shard.tar", 1000, 1010) == data[1000:1010]
    with places.open_binary("s3://bucket/shard.tar") as file:
        file.seek(19_000_000)
        assert file.read(100) == data[19_000_000:19_000_100]
    assert gate.count("GET", "shard.tar") == 2


def test_no_such_bucket(gate: s3.Gate) -> None:
    for ask in (lambda: places.near("s3://nowhere/x"), lambda: places.writing("s3://nowhere/x").__enter__(), lambda: places.listing("s3://nowhere")):
        with pytest.raises(PlaceError, match=r"^s3://nowhere.*there is no such bucket\. Make it first"):
            ask()


def test_nothing_there(gate: s3.Gate) -> None:
    with pytest.raises(PlaceError, match=r"^s3://bucket/cast: there is nothing there"):
        places.near("s3://bucket/cast")


def test_no_right_to_read(gate: s3.Gate) -> None:
    put(cats__1_dot_png=b"one")
    gate.rules.append(lambda method, path: "refuse" if method in ("GET", "HEAD") else "")
    with pytest.raises(PlaceError, match=r"^s3://bucket/cats: may not be (read|listed): the store refused.*Use keys that have the right"):
        places.near("s3://bucket/cats")


def test_no_right_to_write_is_told_before_the_work(gate: s3.Gate) -> None:
    gate.rules.append(lambda method, path: "refuse" if method == "PUT" else "")
    worked = False
    with pytest.raises(PlaceError, match="may not be written: the store refused"), places.writing("s3://bucket/run"):
        worked = True
    assert not worked
    assert s3.keys("bucket") == {}


def test_an_unreachable_store_is_told_within_seconds(gate: s3.Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    began = time.monotonic()
    with (
        monkeypatch.context() as elsewhere,
        pytest.raises(PlaceError, match=r"^s3://bucket/x: the store cannot be reached.*Check the network and its endpoint"),
    ):
        elsewhere.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
        s3.forget()
        places.near("s3://bucket/x")
    assert time.monotonic() - began < address.FIRST + 5


def test_a_store_that_does_not_answer_is_given_up(gate: s3.Gate, monkeypatch: pytest.MonkeyPatch) -> None:
    gate.rules.append(lambda method, path: "hang")
    monkeypatch.setattr(store, "FIRST", 2.0)
    s3.forget()
    with pytest.raises(PlaceError, match=r"cannot be reached .no answer within 2 seconds"):
        places.near("s3://bucket/x")


def test_keys_that_are_missing_are_told(gate: s3.Gate, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with monkeypatch.context() as poor, pytest.raises(PlaceError, match=r"no keys were found for this store.*AWS_ACCESS_KEY_ID"):
        for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            poor.delenv(name)
        poor.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
        poor.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
        s3.forget()
        places.near("s3://bucket/x")


def test_an_upload_that_breaks_off_goes_on_at_the_next_push(gate: s3.Gate) -> None:
    gate.rules.append(lambda method, path: "break off" if method == "PUT" and path.endswith("facts.json") else "")
    with pytest.raises(PlaceError, match=r"What was made is whole in .*, and goes with the next command"), places.writing("s3://bucket/run") as folder:
        folder.mkdir(parents=True)
        for name in ("recipe.toml", "facts.json", "log.jsonl", "1.png", "2.png"):
            (folder / name).write_bytes(name.encode())
    assert set(s3.keys("bucket", "run/")) == {"1.png", "2.png", "log.jsonl", store.HIDDEN + "pushing"}
    gate.rules.clear()
    gate.seen.clear()
    with places.writing("s3://bucket/run"):
        pass
    assert set(s3.keys("bucket", "run/")) == {"1.png", "2.png", "log.jsonl", "facts.json", "recipe.toml"}
    assert gate.count("PUT", "1.png") == 0, "what was there was sent again"


def test_a_download_that_breaks_off_leaves_nothing_half(gate: s3.Gate) -> None:
    put(cats__1_dot_png=b"1" * 1000, cats__2_dot_png=b"2" * 1000)
    gate.rules.append(lambda method, path: "break off" if method == "GET" and path.endswith("2.png") else "")
    with pytest.raises(PlaceError):
        places.near("s3://bucket/cats")
    gate.rules.clear()
    gate.seen.clear()
    s3.forget()
    folder = places.near("s3://bucket/cats")
    assert {path.name: path.stat().st_size for path in folder.iterdir()} == {"1.png": 1000, "2.png": 1000}
    assert gate.count("GET", "1.png") == 0, "what had come was fetched again"


def test_rights_to_put_and_not_to_delete(gate: s3.Gate) -> None:
    """A place where one may write and not delete cannot be kept in order: it is refused before the work."""
    gate.rules.append(lambda method, path: "refuse" if method == "DELETE" else "")
    with pytest.raises(PlaceError, match="may not be taken away"), places.writing("s3://bucket/run"):
        raise AssertionError


def test_the_limits_are_botocores() -> None:
    system, _ = address.filesystem("s3://bucket/x")
    assert system.config_kwargs["connect_timeout"] == address.S3["connect_timeout"]
