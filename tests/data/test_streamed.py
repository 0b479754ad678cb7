"""Shards are a dataset where they lie: the same photos as unpacked, in the same order, and nothing of a broken one is learned from."""

from __future__ import annotations

import io
import json
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.data import member, streamed
from darkroom.data.adopt import adopt
from darkroom.data.ahead import ahead, in_order_of_shards, stretch
from darkroom.data.archives import holds_shards
from darkroom.data.dataset import Photo, content_hash, open_dataset, read_folder, read_held_out, read_learned, rows_of, samples
from darkroom.data.masks import opened_mask
from darkroom.data.member import Member, as_file
from darkroom.data.shards import INDEX
from darkroom.data.streamed import Streamed, read_streamed
from darkroom.errors import DatasetError
from darkroom.files import sha256_bytes
from darkroom.jobs.dataset_page import render
from darkroom.jobs.overview import View, overview
from darkroom.jobs.overview_text import lines
from darkroom.jobs.shards import shards, unpack, unpack_lines
from support.s3 import client, s3_server


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))


def jpg(number: int = 0, size: tuple[int, int] = (48, 32)) -> bytes:
    out = io.BytesIO()
    small = Image.frombytes("RGB", (4, 4), random.Random(number).randbytes(48))
    small.resize(size, Image.Resampling.BICUBIC).save(out, "JPEG")
    return out.getvalue()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Twelve pictures with all that a training reads of a row: captions by two, masks, focus, repeats, copies, a split, a rejected one, folders."""
    folder = tmp_path / "cats"
    for number in range(12):
        path = folder / f"{'10_TOK cat/' if number == 3 else 'deep/' if number % 2 else ''}{number:02d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(jpg(number % 11, (48 + 16 * (number % 3), 32)))  # the last has the bytes of the first
        if number % 4:
            path.with_suffix(".txt").write_text(f"TOK cat, number {number}", encoding="utf-8")
    (folder / "masks").mkdir()
    Image.new("L", (48, 32), 200).save(folder / "masks" / "one.png")
    rows = list(adopt(folder)[0].rows)
    rows = [row.but(captions={**row.captions, "blip": f"ein Bild: ä {row.file}"}, split="held_out" if row.file == "04.jpg" else "train") for row in rows]
    rows[1] = rows[1].but(mask="masks/one.png", focus=(0.25, 0.5), repeats=3)
    rows[2] = rows[2].but(verdict="reject", reasons=("blurred",))
    rows[3] = rows[3].but(chosen="blip")
    return adopt(folder)[0].but(rows, prepare={"held_out": "1", "seed": 3}).save().folder


def told(photo: Photo) -> list[Any]:
    """All that a training sees of a photo, but for where its bytes lie."""
    captions = dict(sorted(photo.captions.items()))
    facts = [photo.path.name, photo.path.stem, photo.caption, photo.caption_source, photo.sha256, photo.width, photo.height, captions, photo.focus]
    return [*facts, photo.repeats, photo.sample, photo.read().tobytes(), photo.mask and opened_mask(photo.mask).tobytes()]


def same(source: str | Path, unpacked: Path) -> None:
    """Shards and a folder give the same photos, held out and learned from, under the same names."""
    found, folder = open_dataset(source), open_dataset(unpacked)
    assert isinstance(found, Streamed) and folder is not None and rows_of(found).hash == rows_of(folder).hash
    for read in (read_learned, read_held_out):
        one, two = samples(read(found, "TOK cat")), samples(read(folder, "TOK cat"))
        assert [told(photo) for photo in one] == [told(photo) for photo in two] and content_hash(one) == content_hash(two)


def archive(path: Path, *members: tuple[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def poster(number: int) -> list[tuple[str, bytes]]:
    key, row = f"{number:09d}", {"url": f"https://x/{number}", "width": 9}
    return [(f"{key}.jpg", jpg(number)), (f"{key}.txt", f"TOK poster {number}\n".encode()), (f"{key}.json", json.dumps(row).encode())]


def others(folder: Path, count: int = 7) -> Path:
    """As img2dataset lays them: two shards of key.jpg, key.txt, key.json."""
    for shard in range(2):
        keys = range(shard * 4, min(count, shard * 4 + 4))
        archive(folder / f"{shard:05d}.tar", *(found for key in keys for found in poster(key)))
    return folder


def test_our_own_shards_are_the_unpacked_dataset(dataset: Path, tmp_path: Path) -> None:
    shards(dataset, tmp_path / "s", 3)
    unpack(tmp_path / "s", tmp_path / "back")
    same(tmp_path / "s", tmp_path / "back")
    same(tmp_path / "s", dataset)


def test_shards_of_others_are_what_unpacking_gives(tmp_path: Path) -> None:
    source = others(tmp_path / "s")
    archive(source / "00002.tar", ("x/../odd key.jpg", jpg(50)), ("nothing.json", b"{}"))
    unpack(source, tmp_path / "back")
    same(source, tmp_path / "back")
    same(source / "00001.tar", _only(tmp_path, source / "00001.tar"))
    assert read_streamed(source).without == 1


def _only(tmp_path: Path, shard: Path) -> Path:
    unpack(shard, tmp_path / "one")
    return tmp_path / "one"


def test_webdataset_gives_the_same_samples_in_the_same_order(tmp_path: Path) -> None:
    """The oracle: the library's own reader over the same tar files."""
    wds = pytest.importorskip("webdataset")
    source = others(tmp_path / "s")
    found = list(wds.WebDataset(str(source / "{00000..00001}.tar"), shardshuffle=False, empty_check=False).decode("pil"))
    photos = read_folder(source, "TOK")
    assert len(found) == len(photos) == 7
    for sample, photo in zip(found, photos, strict=True):
        assert photo.path.stem == sample["__key__"] and photo.caption == sample["txt"].strip()
        assert photo.read().tobytes() == sample["jpg"].tobytes()


def test_a_second_start_reads_no_shard(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(dataset, tmp_path / "s", 3)
    first = read_streamed(tmp_path / "s")
    monkeypatch.setattr(streamed, "_read", lambda *_: pytest.fail("a shard was read again"))
    assert read_streamed(tmp_path / "s") == first
    for note in (tmp_path / "cache" / "shards").iterdir():
        note.write_text(note.read_text(encoding="utf-8")[:-40], encoding="utf-8")
    monkeypatch.undo()
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    assert read_streamed(tmp_path / "s") == first, "damaged notes are made anew"


def test_pictures_are_read_in_large_pieces_in_the_order_of_the_shards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = read_folder(others(tmp_path / "s"), "TOK")
    shuffled = random.Random(1).sample(photos, len(photos))
    assert in_order_of_shards(shuffled, lambda photo: photo) == photos
    reads: list[tuple[str, int, int]] = []
    whole = member.Archive.read

    def read(self: member.Archive, start: int, end: int) -> bytes:
        reads.append((self.path.name, start, end))
        return whole(self, start, end)

    monkeypatch.setattr(member.Archive, "read", read)
    found = list(ahead(photos, lambda photo: photo, lambda photo, picture: picture.resize((8, 8))))
    assert [name for name, _, _ in reads] == ["00000.tar", "00001.tar"], "one read a shard"
    monkeypatch.setattr(member, "AT_ONCE", 3000)
    monkeypatch.setattr(member.Archive, "read", whole)
    again = list(ahead(photos, lambda photo: photo, lambda photo, picture: picture.resize((8, 8))))
    for (one, picture), (two, other), photo in zip(found, again, photos, strict=True):
        assert one is two is photo and picture.tobytes() == other.tobytes() == photo.read().resize((8, 8)).tobytes()


def test_shares_of_processes_lie_together_and_make_the_whole() -> None:
    for count in (0, 1, 5, 12):
        items = list(range(count))
        assert [item for rank in range(3) for item in stretch(items, rank, 3)] == items


def test_few_pictures_are_held_at_once(tmp_path: Path) -> None:
    """Nothing runs ahead of a slow reader without bound."""
    count, made = 60, list[str]()
    archive(tmp_path / "s" / "0.tar", *((f"{n:03d}.jpg", jpg(n)) for n in range(count)))

    def cut(photo: Photo, picture: Image.Image) -> Image.Image:
        made.append(photo.path.stem)
        return picture

    for done, _ in enumerate(ahead(read_folder(tmp_path / "s", "TOK"), lambda photo: photo, cut), 1):
        assert len(made) <= done + 10


def broken(source: Path, said: str) -> str:
    with pytest.raises(DatasetError, match=said) as caught:
        read_folder(source, "TOK")
    return str(caught.value)


def test_a_shard_that_is_half_written(tmp_path: Path) -> None:
    source = others(tmp_path / "s")
    shard = source / "00001.tar"
    whole = shard.read_bytes()
    for cut in (0, 700, len(whole.rstrip(b"\0")) - 2000, len(whole.rstrip(b"\0"))):
        shard.write_bytes(whole[:cut])
        text = broken(source, r"00001\.tar: cannot be read as a plain tar file")
        assert "--whole" in text and ("2 samples before that are whole, up to '000000005'" in text) == (cut > 2000), text
    found = unpack(source, tmp_path / "d", whole=True)
    assert (found["pictures"], found["broken"], found["missing"]) == (6, 1, 0)
    assert "1 of the shards break off" in " ".join(unpack_lines(found))
    with pytest.raises(DatasetError, match="plain tar"):
        unpack(source, tmp_path / "e")


def test_what_shards_json_says_must_be_so(dataset: Path, tmp_path: Path) -> None:
    shards(dataset, tmp_path / "s", 3)
    read_streamed(tmp_path / "s")
    index = tmp_path / "s" / INDEX
    kept, shard = index.read_text(encoding="utf-8"), tmp_path / "s" / "train-000001.tar"
    index.write_text(kept.replace('"complete": true', '"complete": false'), encoding="utf-8")
    broken(tmp_path / "s", "not written to their end .5 are there")
    index.write_text(kept, encoding="utf-8")
    other = (tmp_path / "s" / "train-000000.tar").read_bytes()
    before = shard.read_bytes()
    shard.write_bytes(other)
    broken(tmp_path / "s", r"train-000001\.tar: is not the file that shards\.json tells of")
    shard.write_bytes(before)
    read_streamed(tmp_path / "s")
    shard.unlink()
    broken(tmp_path / "s", r"train-000001\.tar: is missing, and shards\.json names it")
    index.write_text('{"format": 9}')
    broken(tmp_path / "s", "is no index of shards")


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ([("a.jpg", jpg(1)), ("a.jpg", jpg(2))], "the member 'a.jpg' twice"),
        ([("a.jpg", jpg(1)), ("b.jpg", jpg(2)), ("a.txt", b"x")], "the key 'a' twice"),
        ([("a.jpg", jpg(1)), ("a.json", b"[1]")], "JSON cannot be read"),
        ([("a.jpg", jpg(1)), ("a.json", b'{"file": "../x.jpg", "sha256": ""}')], "no name below the dataset's folder"),
        ([("a.jpg", jpg(1)), ("a.json", b'{"file": "/etc/x.jpg", "sha256": ""}')], "no name below the dataset's folder"),
        ([("/etc/a.jpg", jpg(1))], "no name below the dataset's folder"),
        ([("a.jpg", jpg(1)), ("a.json", b'{"file": "x.jpg", "sha256": "00"}')], "other bytes"),
        ([("a.jpg", jpg(1)), ("a.json", b'{"file": "x.jpg", "sha256": "", "repeats": "many"}')], "row is damaged: repeats"),
        ([("a.jpg", jpg(1)), ("a.txt", b"\xff\xfe\x00")], "not UTF-8"),
        ([("a.jpg", jpg(1)), ("a.txt", b"x" * (5 << 20))], "limit for its kind"),
        ([("a.txt", b"x")], r"hold no picture \(1 samples without one\)"),
        ([("a.jpg", b"no picture"), ("b.jpg", jpg(3)[:-200])], r"0\.tar:a\.jpg: is not a picture.*dataset unpack(?s:.*)0\.tar:b\.jpg: cannot be read whole"),
    ],
)  # fmt: skip
def test_what_cannot_be_learned_from_is_told(tmp_path: Path, members: list[tuple[str, bytes]], said: str) -> None:
    archive(tmp_path / "s" / "0.tar", *members)
    broken(tmp_path / "s", said)
    broken(tmp_path / "s", said)  # the second time from what was noted


def test_a_bomb_is_told(tmp_path: Path) -> None:
    out = io.BytesIO()
    Image.new("1", (20000, 10000)).save(out, "PNG")
    archive(tmp_path / "s" / "0.tar", ("a.png", out.getvalue()))
    broken(tmp_path / "s", r"0\.tar:a\.png: 200,000,000 pixels are more than")


def test_two_shards_must_not_hold_one_file(tmp_path: Path) -> None:
    row = json.dumps({"file": "x.jpg", "sha256": sha256_bytes(jpg(1))}).encode()
    for name in ("0", "1"):
        archive(tmp_path / "s" / f"{name}.tar", ("a.jpg", jpg(1)), ("a.json", row))
    broken(tmp_path / "s", r"1\.tar:a\.jpg: is x\.jpg, and so is .*0\.tar:a\.jpg")


def test_a_shard_that_changes_between_index_and_read(tmp_path: Path) -> None:
    source = others(tmp_path / "s")
    photo = read_folder(source, "TOK")[0]
    shard = source / "00000.tar"
    stat, content = shard.stat(), bytearray(shard.read_bytes())
    content[600] ^= 1
    shard.write_bytes(content)
    with pytest.raises(DatasetError, match=r"00000\.tar: changed since it was looked into"):
        photo.read()
    os.utime(shard, ns=(stat.st_atime_ns, stat.st_mtime_ns))  # a change that size and time do not tell of
    with pytest.raises(DatasetError, match="other bytes lie there"):
        photo.read()
    shard.unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        photo.read()


def test_what_are_shards_and_what_is_a_folder(dataset: Path, tmp_path: Path) -> None:
    source = others(tmp_path / "s")
    assert holds_shards(source) and holds_shards(source / "00000.tar") and not holds_shards(dataset) and not holds_shards(tmp_path / "nowhere")
    (source / "a.jpg").write_bytes(jpg())
    assert not holds_shards(source), "pictures in a folder are learned from, whatever else lies there"
    (source / "a.jpg").unlink()
    with pytest.raises(DatasetError, match=r"holds shards.*dataset unpack"):
        adopt(source)


def test_who_wants_a_file_gets_a_copy(tmp_path: Path) -> None:
    photo = read_folder(others(tmp_path / "s"), "TOK")[2]
    assert isinstance(photo.path, Member) and as_file(photo.path).read_bytes() == jpg(2) and as_file(photo.path).suffix == ".jpg"
    assert as_file(tmp_path) == tmp_path


def test_show_tells_of_shards(dataset: Path, tmp_path: Path) -> None:
    shards(dataset, tmp_path / "s", 4)
    archive(tmp_path / "s" / "x.tar", ("b.jpg", jpg(7)[:-100]), ("n.json", b"{}"))
    view = View(base="pocket", resolution=32)
    one, two = overview(tmp_path / "s", view), overview(dataset, view)
    assert one.facts["shards"] == {"shards": 5, "without_picture": 1, "broken": 1, "faults": one.facts["shards"]["faults"]}
    assert one.facts["counts"]["pictures"] == two.facts["counts"]["pictures"] + 1
    told = "\n".join(line for line in lines(one.facts) if isinstance(line, str))
    assert "streamed from 5 shards; 1 samples have no picture" in told and "1 pictures are broken, and a training refuses them" in told
    assert render(one).count("data:image/jpeg") > 5, "thumbnails are read from the shards"


@pytest.fixture
def bucket() -> Iterator[str]:
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    with s3_server("shop"):
        yield "shop"


def test_shards_of_a_store_are_read_where_they_lie(dataset: Path, tmp_path: Path, bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A real S3 server: the same photos by range reads, the second start without reading, a changed object seen, nothing laid on the disk."""
    shards(dataset, tmp_path / "s", 3)
    for path in (tmp_path / "s").iterdir():
        client().upload_file(str(path), bucket, f"cats/{path.name}")
    same(f"s3://{bucket}/cats/", dataset)
    photos = read_folder(f"s3://{bucket}/cats", "TOK")
    assert all(isinstance(photo.path, Member) for photo in photos) and str(photos[0].path).startswith("s3://shop/cats/train-000000.tar:")
    assert not [path for path in (tmp_path / "cache").rglob("*") if path.suffix in (".jpg", ".png", ".tar")], "no picture was laid on the disk"
    read = list(ahead(photos, lambda photo: photo, lambda photo, picture: picture))
    assert [picture.tobytes() for _, picture in read] == [photo.read().tobytes() for photo in photos]
    monkeypatch.setattr(streamed, "_read", lambda *_: pytest.fail("a shard was read again"))
    read_streamed(f"s3://{bucket}/cats")
    monkeypatch.undo()
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    content = (tmp_path / "s" / "train-000000.tar").read_bytes()
    client().put_object(Bucket=bucket, Key="cats/train-000000.tar", Body=content[:512] + bytes(len(content) - 512))
    with pytest.raises(DatasetError, match="other bytes lie there"):
        photos[0].read()
    client().put_object(Bucket=bucket, Key="cats/train-000000.tar", Body=content[: len(content) // 2])
    with pytest.raises(DatasetError, match=r"s3://shop/cats/train-000000\.tar: cannot be read as a plain tar") as caught:
        read_streamed(f"s3://{bucket}/cats")
    assert "dataset unpack s3://shop/cats --to FOLDER --whole" in str(caught.value)
