"""A training from shards is the training from the unpacked folder: the adapter's bytes are equal."""

from __future__ import annotations

import io
import json
import os
import shutil
import socket
import subprocess
import sys
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from darkroom.data.adopt import adopt
from darkroom.data.dataset import read_folder
from darkroom.errors import DatasetError
from darkroom.files import sha256_file
from darkroom.jobs.previews import Previews
from darkroom.jobs.prior import class_pictures
from darkroom.jobs.shards import shards, unpack
from darkroom.jobs.train import prepare, resume_training, run_training
from darkroom.jobs.watch import Silent
from darkroom.methods import ControlNet
from darkroom.train.condition import condition, pair
from darkroom.train.feed import Feed
from darkroom.train.recipe import Recipe
from support.s3 import client, s3_server


@pytest.fixture
def packed(cats: Path, tmp_path: Path) -> Path:
    """The cats as three shards of two pictures, with captions by two, a mask, repeats, a held-out one; and unpacked again beside them."""
    folder = tmp_path / "own"
    folder.mkdir()
    for number, path in enumerate(sorted(cats.glob("*.png"))):
        (folder / path.name).write_bytes(path.read_bytes())
        (folder / path.name).with_suffix(".txt").write_text(f"TOK cat, one, two, number {number}", encoding="utf-8")
    (folder / "masks").mkdir()
    rows = list(adopt(folder)[0].rows)
    Image.new("L", (rows[1].width, rows[1].height), 255).save(folder / "masks" / "one.png")
    rows = [row.but(captions={**row.captions, "blip": f"TOK by blip {n}"}, split="held_out" if n == 5 else "train") for n, row in enumerate(rows)]
    rows[1] = rows[1].but(mask="masks/one.png", focus=(0.2, 0.7))
    rows[2] = rows[2].but(repeats=3)
    adopt(folder)[0].but(rows).save()
    shards(folder, tmp_path / "shards", 2)
    unpack(tmp_path / "shards", tmp_path / "unpacked")
    return tmp_path


def recipe_of(quick: Recipe, images: str, **data: object) -> Recipe:
    tree = quick.model_dump(mode="json")
    tree["data"] |= {"images": images, "crop": "random", "flip": True, "resolution": 32, **data}
    tree["data"]["wording"] |= {"mix": {"original": 0.5, "blip": 0.5}, "shuffle": True}
    tree["validation"] |= {"every": "3 steps", "draws": 1}
    return type(quick).from_tree(tree, "test")


def learned(quick: Recipe, images: str, out: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The adapter's hash, by a cache of its own: nothing that another training encoded is found."""
    monkeypatch.setenv("DARKROOM_CACHE", str(cache))
    run = run_training(recipe_of(quick, images), out)
    rows = [json.loads(line) for line in (out / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    assert any("validation" in row for row in rows) and run.facts["preflight"]["masked"] == 1
    return sha256_file(run.product)


def test_the_bytes_of_the_adapter_are_equal(quick: Recipe, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random crops, mirrored pictures, mixed and shuffled captions, a mask, repeats and held-out pictures; then stopped half-way, and gone on with."""
    found = {name: learned(quick, str(packed / name), packed / f"run-{name}", packed / f"cache-{name}", monkeypatch) for name in ("unpacked", "shards")}
    assert len(set(found.values())) == 1, found
    facts = {name: json.loads((packed / f"run-{name}" / "facts.json").read_text(encoding="utf-8")) for name in found}
    for key in ("pictures_sha256", "dataset_sha256", "pictures", "held_out", "preflight"):
        assert facts["shards"][key] == facts["unpacked"][key], key
    _stopped(packed / "run-shards", 4)
    assert sha256_file(resume_training(packed / "run-shards").product) == found["unpacked"]
    assert not list((packed / "cache-shards").rglob("*.png")) and not list((packed / "cache-shards").rglob("*.jpg"))


def _stopped(run: Path, step: int) -> None:
    """The run as a kill after that step leaves it."""
    (run / "adapter.safetensors").unlink()
    for folder in (run / "steps").iterdir():
        if int(folder.name) > step:
            shutil.rmtree(folder)


def test_a_store_is_trained_from_without_unpacking(quick: Recipe, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same bytes from a real S3 server, by a cache that never saw the pictures."""
    pytest.importorskip("moto.server")
    pytest.importorskip("s3fs")
    one = learned(quick, str(packed / "unpacked"), packed / "a", packed / "cache-a", monkeypatch)
    with s3_server("streamed"):
        for path in (packed / "shards").iterdir():
            client().upload_file(str(path), "streamed", f"cats/{path.name}")
        assert learned(quick, "s3://streamed/cats/", packed / "b", packed / "cache-b", monkeypatch) == one
    kept = {path.suffix for path in (packed / "cache-b").rglob("*") if path.is_file()}
    assert not kept & {".png", ".tar", ".jpg"}, kept


def test_the_preflight_tells_of_a_broken_shard_before_the_model_is_opened(quick: Recipe, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shard = packed / "shards" / "train-000001.tar"
    shard.write_bytes(shard.read_bytes()[:3000])
    monkeypatch.setattr("darkroom.jobs.train.open_base", lambda *_: pytest.fail("the model was opened"))
    with pytest.raises(DatasetError, match=r"train-000001\.tar: cannot be read as a plain tar"):
        prepare(recipe_of(quick, str(packed / "shards")))


class Told(Silent):
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


def test_samples_without_a_picture_are_told(quick: Recipe, packed: Path) -> None:
    with tarfile.open(packed / "shards" / "x.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo("nothing.json"), io.BytesIO())
        info = tarfile.TarInfo("other.json")
        info.size = 2
        tar.addfile(info, io.BytesIO(b"{}"))
    watcher = Told()
    prepare(recipe_of(quick, str(packed / "shards")), watcher)
    assert watcher.said == ["2 samples of the shards have no picture and are left out."]


def test_pictures_of_the_class_may_be_shards(quick: Recipe, packed: Path) -> None:
    def wanted(name: str, count: int) -> Recipe:
        return recipe_of(quick, str(packed / "shards"), prior={"prompt": "a cat", "pictures": str(packed / name), "count": count})

    found = [[(photo.sha256, photo.caption) for photo in class_pictures(wanted(name, 3))] for name in ("shards", "unpacked")]
    assert found[0] == found[1] and len(found[0]) == 3
    with pytest.raises(DatasetError, match=r"holds 5 pictures, and data\.prior\.count asks for 9"):
        class_pictures(wanted("shards", 9))


def test_a_controlnet_reads_pairs_and_previews_beside_shards(quick: Recipe, packed: Path) -> None:
    pytest.importorskip("cv2")
    (streamed, *_), (lying, *_) = (read_folder(packed / name, "TOK cat") for name in ("shards", "unpacked"))
    (packed / "pairs").mkdir()
    Image.new("RGB", (streamed.width, streamed.height), (200, 10, 10)).save(packed / "pairs" / f"{lying.path.stem}.png")
    method = ControlNet(condition="as_is", pairs=str(packed / "pairs"))
    assert pair(method, streamed) == pair(method, lying)
    alone = ControlNet()
    one, two = (condition(alone, photo, lambda picture: picture.resize((64, 64)), torch.device("cpu")) for photo in (streamed, lying))
    assert torch.equal(one, two)
    recipe = quick.model_copy(update={"method": alone})
    previews = Previews(recipe, SimpleNamespace(tokenizer=object()), None, packed / "net", streamed)  # type: ignore[arg-type]
    followed = Path(previews.request(0, "TOK cat").controls[0].image)
    assert isinstance(lying.path, Path) and followed.read_bytes() == lying.path.read_bytes(), "a preview names a file that can be opened"


WORK = """
import json, sys
from pathlib import Path
from darkroom.data import member, streamed
from darkroom.jobs.train import prepare
from darkroom.spec import read_toml
from darkroom.train.crew import Crew
from darkroom.methods import ControlNet
from darkroom.train.condition import condition, pair
from darkroom.train.feed import Feed
from darkroom.train.recipe import Recipe
reads, looked, read, look = [], [], member.Archive.read, streamed._read
def reading(self, start, end):
    reads.append((self.path.name, start, end))
    return read(self, start, end)
def looking(archive, source):
    looked.append(archive.path.name)
    return look(archive, source)
member.Archive.read, streamed._read = reading, looking
recipe = Recipe.from_tree(read_toml(Path(sys.argv[1])), "test")
model, plan = prepare(recipe)
Feed(recipe, plan, model, None).encode_all(0, plan.steps, lambda done, total: None, Crew.join())
print(json.dumps([reads, looked]))
"""


def encoded(cache: Path) -> dict[str, str]:
    """Everything that was encoded, by name, as hashes."""
    return {path.name: sha256_file(path) for path in (cache / "encoded").rglob("*.safetensors")}


def test_two_processes_read_each_what_they_encode(quick: Recipe, packed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one cache: no shard is looked into twice, no part of a shard is read by both, and what they encode is what one process does, to the byte."""
    recipe = recipe_of(quick, str(packed / "shards"))
    (packed / "recipe.toml").write_text(recipe.to_toml(), encoding="utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    told = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    told["DARKROOM_CACHE"] = str(packed / "cache-two")
    command = [sys.executable, "-c", WORK, str(packed / "recipe.toml")]
    crew = [subprocess.Popen(command, env={**told, "RANK": rank, "LOCAL_RANK": rank}, stdout=subprocess.PIPE, stderr=subprocess.PIPE) for rank in "01"]
    answers = [process.communicate(timeout=300) for process in crew]
    assert [process.returncode for process in crew] == [0, 0], [error.decode()[-2000:] for _, error in answers]
    (one, looked), (two, seen) = (json.loads(out.splitlines()[-1]) for out, _ in answers)
    names = sorted(path.name for path in (packed / "shards").glob("*.tar"))
    assert sorted([*looked, *seen]) == names and looked and seen, "each shard is looked into once"
    assert sorted({name for name, _, _ in [*one, *two]}) == names and one and two and not {tuple(part) for part in one} & {tuple(part) for part in two}
    monkeypatch.setenv("DARKROOM_CACHE", str(packed / "cache-one"))
    model, plan = prepare(recipe)
    Feed(recipe, plan, model, None).encode_all(0, plan.steps, lambda done, total: None)
    assert encoded(packed / "cache-one") == encoded(packed / "cache-two") and len(encoded(packed / "cache-one")) > 5
