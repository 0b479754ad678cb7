"""A dataset goes through shards and comes back as it was; any program for WebDataset reads them; and no archive writes where it should not.

Of data/shards.py and data/unpack.py as well as of the jobs: their promises are kept together or not at all.
"""

from __future__ import annotations

import gzip
import io
import json
import random
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from darkroom.data import unpack as reader
from darkroom.data.adopt import adopt
from darkroom.data.manifest import Manifest, Row
from darkroom.data.shards import INDEX, read_index, write_shards
from darkroom.data.unpack import samples, unpacked
from darkroom.errors import DatasetError, OutputError, RecipeError
from darkroom.files import sha256_bytes
from darkroom.jobs.shards import shard_lines, shards, unpack, unpack_lines


def png(colour: tuple[int, int, int] = (9, 9, 9), size: tuple[int, int] = (6, 4)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, colour).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def dataset(tmp_path: Path) -> Path:
    """Eleven pictures with everything that a row can say, and a rejected file that is no picture."""
    folder = tmp_path / "cats"
    for number in range(11):
        path = folder / f"{'deep/er/' if number % 3 == 0 else ''}käse {number}.v2.PNG"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png((number, 0, 0), (20 + number, 10)))
        if number % 2:
            path.with_suffix(".txt").write_text(f"a cat, number {number}", encoding="utf-8")
    (folder / "broken.jpg").write_bytes(b"no picture")
    (folder / "masks").mkdir()
    Image.new("L", (21, 10), 200).save(folder / "masks" / "one.png")
    manifest, _ = adopt(folder)
    rows = [
        row.but(source=f"https://x/{row.file}", licence="CC0", figures={"sharpness": 1.5}, extra={"id": "7"}, cluster="c", repeats=2) for row in manifest.rows
    ]
    rows = [row.but(captions={**row.captions, "blip": "ein Bild: ä"}, chosen="blip", split="held_out" if "9" in row.file else "train") for row in rows]
    rows[0] = rows[0].but(verdict="reject", reasons=("no picture: cannot be read",), chosen="", split="")
    rows[1] = rows[1].but(mask="masks/one.png", focus=(0.25, 0.5), verdict="reject", overruled="keep")
    return manifest.but(rows, prepare={"held_out": "1", "seed": 3}).save().folder


def same(one: Path, two: Path) -> None:
    """Both datasets hold the same rows and bytes."""
    before, after = Manifest.open(one), adopt(two)[0]
    assert [row.but(changed=0) for row in before.rows] == [row.but(changed=0) for row in after.rows]
    for row in before.rows:
        assert (one / row.file).read_bytes() == (two / row.file).read_bytes()
        assert not row.mask or (one / row.mask).read_bytes() == (two / row.mask).read_bytes()
    assert before.hash == after.hash
    assert after.notes["prepare"] == before.notes["prepare"]


def test_there_and_back(dataset: Path, tmp_path: Path) -> None:
    index = shards(dataset, tmp_path / "shards", 3)
    assert [entry["name"] for entry in index["shards"]] == [
        *(f"train-{n:06d}.tar" for n in range(4)), "held_out-000000.tar", "rejected-000000.tar",
    ]  # fmt: skip
    assert [entry["pictures"] for entry in index["shards"]] == [3, 3, 3, 1, 1, 1]
    found = unpack(tmp_path / "shards", tmp_path / "back")
    assert (found["pictures"], found["kept"], found["held_out"], found["hash"]) == (12, 11, 1, index["dataset"])
    same(dataset, tmp_path / "back")
    assert not adopt(tmp_path / "back")[1], "nothing is read again"
    assert "6 shards" in shard_lines(index)[0] and "12 pictures from 6 shards" in unpack_lines(found)[0]


def test_equal_datasets_give_equal_bytes(dataset: Path, tmp_path: Path) -> None:
    shards(dataset, tmp_path / "a", 5)
    copied = shutil.copytree(dataset, tmp_path / "elsewhere")
    shards(copied, tmp_path / "b", 5)
    files = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert files == sorted(path.name for path in (tmp_path / "b").iterdir()) and len(files) == 5
    for name in files:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name


def test_webdataset_reads_what_we_write(dataset: Path, tmp_path: Path) -> None:
    """The oracle: the library's own reader, decoder and shard list."""
    wds = pytest.importorskip("webdataset")
    shards(dataset, tmp_path / "s", 4)
    pattern = str(tmp_path / "s" / "train-{000000..000002}.tar")
    found = list(wds.WebDataset(pattern, shardshuffle=False, empty_check=False).decode("pil"))
    rows = [row for row in Manifest.open(dataset).rows if row.kept and row.split == "train"]
    assert len(found) == len(rows) == 10
    for sample, row in zip(found, rows, strict=True):
        assert sample["png"].size == (row.width, row.height)
        assert sample["json"]["file"] == row.file and sample["json"]["split"] == "train"
        assert sample["txt"] == row.caption
        assert ("mask.png" in sample) == bool(row.mask)
    assert len({sample["__key__"] for sample in found}) == 10


def test_we_read_what_webdataset_writes(tmp_path: Path) -> None:
    """As img2dataset lays them: key.jpg, key.txt, key.json with url and sizes."""
    wds = pytest.importorskip("webdataset")
    (tmp_path / "s").mkdir()
    with wds.ShardWriter(str(tmp_path / "s" / "%05d.tar"), maxcount=2, verbose=0) as sink:
        for number in range(5):
            sample: dict[str, Any] = {
                "__key__": f"{number:09d}",
                "png": png((number, 1, 1)),
                "json": {"url": f"https://x/{number}", "width": 6, "NSFW": "UNLIKELY"},
            }
            sink.write(sample | ({"txt": f"poster {number}\n"} if number else {}))
        sink.write({"__key__": "no-picture", "json": {}})
    found = unpack(tmp_path / "s", tmp_path / "d")
    assert (found["pictures"], found["without_picture"]) == (5, 1)
    rows = adopt(tmp_path / "d")[0].rows
    assert [row.captions.get("original", "") for row in rows] == ["", "poster 1", "poster 2", "poster 3", "poster 4"]
    assert rows[2].source == "https://x/2" and rows[2].extra == {"width": "6", "NSFW": "UNLIKELY"} and (rows[2].width, rows[2].format) == (6, "PNG")
    assert rows[0].file == "pictures/00000/000000000.png"


class Stop(Exception):
    """A kill, as far as Python lets one be played."""


def test_a_stopped_export_goes_on(dataset: Path, tmp_path: Path) -> None:
    manifest = adopt(dataset)[0]

    def stop(done: int, total: int) -> None:
        if done >= 6:
            raise Stop

    with pytest.raises(Stop):
        write_shards(manifest, tmp_path / "s", 3, stop)
    index = read_index(tmp_path / "s")
    assert index is not None and not index["complete"] and len(index["shards"]) == 2
    before = (tmp_path / "s" / "train-000000.tar").stat().st_mtime_ns
    (tmp_path / "s" / "train-000001.tar").write_bytes(b"damaged")
    shards(dataset, tmp_path / "s", 3)
    assert (tmp_path / "s" / "train-000000.tar").stat().st_mtime_ns == before, "what is whole is not written again"
    unpack(tmp_path / "s", tmp_path / "back")
    same(dataset, tmp_path / "back")


def test_a_stopped_unpacking_goes_on(dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards(dataset, tmp_path / "s", 2)
    for stop_at in (1, 3, 4, 5):
        left = stop_at

        def stopping(*args: Any) -> Any:
            nonlocal left
            left -= 1
            if left == 0:
                raise KeyboardInterrupt
            return reader.unpacked(*args)

        monkeypatch.setattr("darkroom.jobs.shards.unpacked", stopping)
        with pytest.raises(KeyboardInterrupt):
            unpack(tmp_path / "s", tmp_path / "back")
    monkeypatch.setattr("darkroom.jobs.shards.unpacked", reader.unpacked)
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "back").rglob("*.PNG")}
    assert len(written) > 5
    unpack(tmp_path / "s", tmp_path / "back")
    same(dataset, tmp_path / "back")
    assert {path: path.stat().st_mtime_ns for path in written} == written


def test_a_kill_before_anything_was_noted_costs_only_time(dataset: Path, tmp_path: Path) -> None:
    shards(dataset, tmp_path / "s", 3)
    unpack(tmp_path / "s", tmp_path / "back")
    manifest = Manifest.open(tmp_path / "back")
    manifest.but([], unpack={**manifest.notes["unpack"], "shards": {}, "counts": {}}).save()  # as it was written first
    assert unpack(tmp_path / "s", tmp_path / "back")["pictures"] == 12
    same(dataset, tmp_path / "back")


def test_places_that_hold_something_else(dataset: Path, tmp_path: Path) -> None:
    shards(dataset, tmp_path / "s", 3)
    with pytest.raises(OutputError, match="another dataset"):
        shards(dataset, tmp_path / "s", 4)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "x").write_text("mine")
    for action in (lambda: shards(dataset, tmp_path / "other", 3), lambda: unpack(tmp_path / "s", tmp_path / "other"), lambda: unpack(tmp_path / "s", dataset)):
        with pytest.raises(OutputError):
            action()
    with pytest.raises(RecipeError, match="--per-shard 0"):
        shards(dataset, tmp_path / "z", 0)
    with pytest.raises(DatasetError, match=r"no \.tar file"):
        unpack(dataset, tmp_path / "z")


def test_a_shard_that_is_missing_or_other_is_told(dataset: Path, tmp_path: Path) -> None:
    shards(dataset, tmp_path / "s", 3)
    swapped = (tmp_path / "s" / "train-000001.tar").read_bytes()
    (tmp_path / "s" / "train-000000.tar").write_bytes(swapped)
    with pytest.raises(DatasetError, match=r"train-000000\.tar: is not the file"):
        unpack(tmp_path / "s", tmp_path / "a")
    (tmp_path / "s" / "train-000000.tar").unlink()
    with pytest.raises(DatasetError, match=r"train-000000\.tar: is missing"):
        unpack(tmp_path / "s", tmp_path / "b")
    (tmp_path / "s" / INDEX).write_text('{"format": 99}')
    with pytest.raises(DatasetError, match="no index"):
        unpack(tmp_path / "s", tmp_path / "c")


def archive(path: Path, *members: tuple[str, bytes] | tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                tar.addfile(member)
            else:
                info = tarfile.TarInfo(member[0])
                info.size = len(member[1])
                tar.addfile(info, io.BytesIO(member[1]))
    return path


def row_json(**changes: Any) -> bytes:
    return json.dumps({"file": "a.png", "sha256": sha256_bytes(png()), **changes}).encode()


@pytest.mark.parametrize(
    "name",
    ["../out.png", "/tmp/out.png", "x/../../out.png", "..", "a/./b.png", "a//b.png", ".hidden.png", "x/.git/a.png", "manifest.parquet", "a.png/", "a\0.png",
     "run.sh", "", "link/a.png"],
)  # fmt: skip
def test_no_row_leads_out_of_the_folder(tmp_path: Path, name: str) -> None:
    inner = tmp_path / "in" / "d"
    inner.mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (inner / "link").symlink_to(tmp_path / "elsewhere")
    shard = archive(tmp_path / "s.tar", ("0.png", png()), ("0.json", row_json(file=name)))
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(DatasetError):
        for sample in samples(shard):
            unpacked(sample, shard, inner)
    assert sorted(tmp_path.rglob("*")) == before and not Path("/tmp/out.png").exists()


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"mask": "../m.png"}, "no name below"), ({"mask": "a.png"}, "masks lie in"), ({"beside": "../a.txt"}, "not beside"),
        ({"beside": "b.txt"}, "not beside"),
        ({"sha256": "0" * 64}, "other bytes"), ({"captions": ["x"]}, "damaged"), ({"verdict": "maybe"}, "damaged"), ({"repeats": "many"}, "damaged"),
        ({"focus": [1]}, "damaged"),
    ],
)  # fmt: skip
def test_rows_that_cannot_be_are_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    shard = archive(tmp_path / "s.tar", ("0.png", png()), ("0.mask.png", png()), ("0.json", row_json(**changes)))
    with pytest.raises(DatasetError, match=said):
        unpacked(next(samples(shard)), shard, tmp_path / "d")


def test_members_that_are_no_files_are_not_followed(tmp_path: Path) -> None:
    links = []
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.DIRTYPE, tarfile.FIFOTYPE):
        info = tarfile.TarInfo(f"{kind.decode()}.png")
        info.type, info.linkname = kind, "/etc/passwd"
        links.append(info)
    shard = archive(tmp_path / "s.tar", *links, ("../../0.png", png()), ("c d.png", png((1, 1, 1))), ("c_d.png", png((2, 2, 2))))
    found = unpack(shard, tmp_path / "d")
    assert found["pictures"] == 3
    files = sorted(path.relative_to(tmp_path / "d").as_posix() for path in (tmp_path / "d").rglob("*.png"))
    assert all(file.startswith("pictures/s/") for file in files) and len(files) == 3, "two keys of one cleaned name are two files"


def test_an_absolute_key_is_refused(tmp_path: Path) -> None:
    shard = archive(tmp_path / "s.tar", ("/etc/0.png", png()))
    with pytest.raises(DatasetError, match="below the dataset's folder"):
        unpack(shard, tmp_path / "d")


def claims(path: Path, size: int, kind: bytes = tarfile.REGTYPE) -> Path:
    """A header that claims more than there is."""
    info = tarfile.TarInfo("0.png")
    info.size, info.type = size, kind
    path.write_bytes(info.tobuf(tarfile.GNU_FORMAT) + b"\0" * 2048)
    return path


@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_SPARSE])
@pytest.mark.parametrize("size", [1 << 30, 1 << 50, 5000])
def test_sizes_that_lie_cost_no_memory(tmp_path: Path, kind: bytes, size: int) -> None:
    shard = claims(tmp_path / "s.tar", size, kind)
    with pytest.raises(DatasetError):
        unpack(shard, tmp_path / "d")


def test_a_sparse_member_is_left_out(tmp_path: Path) -> None:
    """A few bytes in the archive that would become 300 MiB: PAX's way of saying so, with the type of a plain file."""
    info = tarfile.TarInfo("0.png")
    content = f"1\n0\n{len(png())}\n".encode().ljust(512, b"\0") + png()
    info.size, info.pax_headers = (
        len(content),
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "0.png", "GNU.sparse.realsize": str(300 << 20)},
    )
    with tarfile.open(tmp_path / "s.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        tar.addfile(info, io.BytesIO(content))
    with tarfile.open(tmp_path / "s.tar") as tar:
        assert tar.getmembers()[0].issparse() and tar.getmembers()[0].size == 300 << 20
    with pytest.raises(DatasetError, match="hold no picture"):
        unpack(tmp_path / "s.tar", tmp_path / "d")


def test_text_has_a_limit(tmp_path: Path) -> None:
    shard = archive(tmp_path / "s.tar", ("0.png", png()), ("0.txt", b"a" * (5 << 20)))
    with pytest.raises(DatasetError, match="limit for its kind"):
        unpack(shard, tmp_path / "d")


def test_wherever_a_shard_is_cut_off_it_is_told(tmp_path: Path) -> None:
    whole = archive(tmp_path / "s.tar", *[(f"{n}.png", png((n, 0, 0))) for n in range(4)]).read_bytes()
    end = whole.rstrip(b"\0")
    for cut in sorted({0, 100, 512, 1024, *(random.Random(0).randrange(len(end)) for _ in range(12)), len(end) // 512 * 512}):
        (tmp_path / "cut.tar").write_bytes(whole[:cut])
        with pytest.raises(DatasetError, match=r"cut\.tar"):
            list(samples(tmp_path / "cut.tar"))


@pytest.mark.parametrize("change", [lambda data: gzip.compress(data), lambda data: b"PK\x03\x04" + data, lambda data: data[:600] + b"\xff" * 600 + data[1200:]])
def test_what_is_no_plain_tar_is_told(tmp_path: Path, change: Callable[[bytes], bytes]) -> None:
    whole = archive(tmp_path / "s.tar", ("0.txt", b"a"), ("0.png", png())).read_bytes()
    (tmp_path / "x.tar").write_bytes(change(whole))
    with pytest.raises(DatasetError, match=r"x\.tar: cannot be read as a plain tar"):
        list(samples(tmp_path / "x.tar"))


def test_a_picture_gone_since_is_told(dataset: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(dataset)
    (dataset / manifest.rows[4].file).unlink()
    with pytest.raises(DatasetError, match="cannot be read"):
        write_shards(manifest, tmp_path / "s", 3)


def test_a_picture_that_changes_meanwhile_is_not_packed(dataset: Path, tmp_path: Path) -> None:
    manifest = Manifest.open(dataset)
    (dataset / manifest.rows[4].file).write_bytes(png((77, 7, 7)))
    with pytest.raises(DatasetError, match="changed while"):
        write_shards(manifest, tmp_path / "s", 3)


def test_unknown_columns_of_a_later_version_are_no_error(tmp_path: Path) -> None:
    shard = archive(tmp_path / "s.tar", ("0.png", png()), ("0.json", row_json(mood="glad", captions={"original": "a"})))
    row = unpacked(next(samples(shard)), shard, tmp_path / "d")
    assert (
        row is not None
        and row.captions == {"original": "a"}
        and row == Row("a.png", sha256_bytes(png()), 6, 4, len(png()), row.changed, "PNG", captions={"original": "a"})
    )
