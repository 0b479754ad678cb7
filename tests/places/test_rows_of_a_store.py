"""Rows that name objects of a store are collected as rows of the web are: bounded, told in words, gone on with; on a real S3 server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("moto", reason="moto[server] is a development dependency")
pytest.importorskip("s3fs", reason="s3fs is the extra [s3]")

from darkroom import fence, pocket
from darkroom.data import stored
from darkroom.data.fetch import Limits
from darkroom.data.manifest import Manifest
from darkroom.errors import DatasetError
from darkroom.jobs.collect import Collect, collect
from darkroom.jobs.collected import Collected, failures_of
from darkroom.jobs.engine import open_engine
from support import s3

CATS = sorted((pocket.CATS / "train").glob("*.png"))
QUICK = Limits(max_bytes=40_000, retries=1, first_pause=0.01)

pytestmark = pytest.mark.usefixtures("machine")


@pytest.fixture(scope="module", autouse=True)
def gate() -> Iterator[s3.Gate]:
    with s3.gated("pictures", "closed") as found:
        for file in CATS:
            s3.client().upload_file(str(file), "pictures", f"cats/{file.name}")
        s3.client().put_object(Bucket="pictures", Key="cats/page.html", Body=b"<html>")
        s3.client().put_object(Bucket="pictures", Key="cats/empty.png", Body=b"")
        s3.client().put_object(Bucket="pictures", Key="cats/large.png", Body=b"x" * 50_000)
        s3.client().upload_file(str(CATS[0]), "closed", "cat.png")
        yield found


@pytest.fixture(autouse=True)
def as_it_was(gate: s3.Gate, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr("s3fs.S3FileSystem.retries", 1)
    gate.seen.clear()
    yield
    gate.rules.clear()


def table(*addresses: str) -> Path:
    Path("list.txt").write_text("\n".join(addresses), encoding="utf-8")
    return Path("list.txt")


def brought(source: Path, to: str = "d", **how: Any) -> Collected:
    return collect(Collect(source, Path(to), limits=how.pop("limits", QUICK), **how))


def bodies(to: str) -> dict[str, bytes]:
    return {row.source: (Path(to) / row.file).read_bytes() for row in Manifest.open(Path(to)).rows}


def test_objects_come_as_they_are_and_once(gate: s3.Gate) -> None:
    rows = table(*(f"s3://pictures/cats/{file.name}" for file in CATS))
    found = brought(rows)
    assert (found.new, found.failed) == (len(CATS), {})
    assert bodies("d") == {f"s3://pictures/cats/{file.name}": file.read_bytes() for file in CATS}
    assert {row.status for row in Manifest.open(Path("d")).rows} == {stored.STATUS}
    gate.seen.clear()
    assert brought(rows).before == len(CATS)
    assert not gate.seen, "what is there was asked for again"


def test_every_failure_has_its_reason_and_ends_its_row_alone(gate: s3.Gate) -> None:
    gate.rules.append(lambda method, path: "refuse" if path.startswith("/closed") else "")
    good = f"s3://pictures/cats/{CATS[0].name}"
    wrong = {
        "s3://pictures/cats/none.png": "not in the store", "s3://pictures/cats": "not in the store", "s3://nowhere-at-all/x.png": "no such bucket",
        "s3://closed/cat.png": "the store refused", "s3://pictures/cats/large.png": "too large", "s3://pictures/cats/page.html": "no picture",
        "s3://pictures/cats/empty.png": "no picture", "sftp://host/x.png": "no address that can be asked", "file:///etc/passwd": "no address that can be asked",
        "memory://x.png": "no address that can be asked",
    }  # fmt: skip
    found = brought(table(good, *wrong))
    assert found.new == 1
    assert {entry.address: entry.reason for entry in failures_of(Path("d"), None)} == wrong
    assert not any(entry.temporary for entry in failures_of(Path("d"), None))


def test_a_store_that_breaks_off_is_asked_again_and_then_later(gate: s3.Gate) -> None:
    rows, tries = table(*(f"s3://pictures/cats/{file.name}" for file in CATS[:2])), list[str]()

    def once(method: str, path: str) -> str:
        if method == "GET" and path.endswith(CATS[0].name) and len(tries) < 1:
            tries.append(path)
            return "break off"
        return ""

    gate.rules.append(once)
    assert brought(rows).new == 2
    assert len(tries) == 1
    gate.rules.clear()
    gate.rules.append(lambda method, path: "break off" if path.endswith(CATS[0].name) else "")
    found = brought(rows, "e")
    assert (found.new, found.temporary) == (1, 1)
    gate.rules.clear()
    assert brought(rows, "e", retry=True).new == 1
    assert bodies("e") == bodies("d")


def test_no_more_at_a_time_from_a_bucket_than_from_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    import asyncio

    now, most, plain = [0], [0], stored.stored

    async def counted(address: str, to: Path, limit: int) -> str:
        now[0] += 1
        most[0] = max(most[0], now[0])
        await asyncio.sleep(0.01)
        try:
            return await plain(address, to, limit)
        finally:
            now[0] -= 1

    monkeypatch.setattr("darkroom.data.fetch.stored", counted)
    assert brought(table(*(f"s3://pictures/cats/{file.name}" for file in CATS)), limits=Limits(per_host=2)).new == len(CATS)
    assert most == [2]


def test_workers_bring_the_same(gate: s3.Gate) -> None:
    rows = table(*(f"s3://pictures/cats/{file.name}" for file in CATS[:3]), "s3://pictures/cats/none.png")
    one = brought(rows, "one")
    with open_engine("local", 2) as crew:
        two = collect(Collect(rows, Path("two"), limits=QUICK), None, crew)
    assert (two.new, two.failed) == (one.new, one.failed) == (3, {"not in the store": 1})
    assert bodies("two") == bodies("one")


def test_a_page_does_not_ask_stores_with_the_keys_of_whoever_serves_it(tmp_path: Path, gate: s3.Gate) -> None:
    with fence.within(fence.Fence.around([tmp_path])), pytest.raises(DatasetError, match="an address of a store"):
        brought(table(f"s3://pictures/cats/{CATS[0].name}"))
    assert not gate.seen
