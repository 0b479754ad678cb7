"""Links that were planted in the workspace and lead out of it, and files that name what lies outside: no page and no job that it ordered reads through them.

A person's own command follows the same links: that it finds what pages must not is what makes these tests able to fail.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom.data.adopt import adopt
from darkroom.data.dataset import read_folder
from darkroom.data.manifest import MANIFEST, Manifest, Row
from darkroom.data.masks import find_masks
from darkroom.data.sources import Wanted
from darkroom.errors import DatasetError
from darkroom.fence import Fence, Outside, stand, within
from darkroom.files import sha256_file
from darkroom.jobs.collect import Collect, collect
from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.studio import Studio
from support.contents import furnish
from support.harm import SEEDS
from support.waiting import until

WORD = "xylophone"
"""What the neighbour's captions say; it stands nowhere else."""
SIZE = (333, 777)
"""Pixels of the neighbour's picture; no other has these."""
Answer = Any


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A furnished workspace beside a neighbour, and temporary files in a place of their own."""
    for name in ("temporary", "cache", "neighbour/deep", "workspace"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setenv("TMPDIR", str(tmp_path / "temporary"))
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    _neighbour(tmp_path / "neighbour")
    furnish(tmp_path / "workspace")
    return tmp_path


def _neighbour(folder: Path) -> None:
    noise = Image.frombytes("RGB", SIZE, random.Random(7).randbytes(SIZE[0] * SIZE[1] * 3))
    for file in (folder / "private.png", folder / "deep" / "private.png"):
        noise.save(file)
        file.with_suffix(".txt").write_text(f"a {WORD} of my own")
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "tears.png", "text": f"tears on a {WORD}"}))
    Manifest(folder, ()).but([Row("private.png", captions={"original": f"a {WORD}"}, width=SIZE[0], height=SIZE[1])]).save()


@pytest.fixture
def studio(place: Path) -> Studio:
    return Studio(Grounds.of(place / "workspace", []), Door())


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url="http://127.0.0.1", headers={"X-Darkroom": "1"}, raise_server_exceptions=False) as found:
        yield found


def plant(place: Path) -> None:
    """Links to files and folders of the neighbour's, wherever a page or a job looks."""
    home, neighbour = place / "workspace", place / "neighbour"
    cats, linked = home / "datasets" / "cats", home / "datasets" / "linked"
    linked.mkdir()
    for name, cat in zip(("tears", "named"), sorted(cats.glob("*.png")), strict=False):
        shutil.copy(cat, linked / f"{name}.png")
    (home / "datasets" / "foreign").mkdir()
    (home / "datasets" / "masked" / "masks").mkdir(parents=True)
    shutil.copy(cats / "weary-cat.png", home / "datasets" / "masked" / "a.png")
    for name, target in {
        "datasets/linked/planted.png": "private.png", "datasets/linked/planted.txt": "private.txt", "datasets/linked/named.txt": "private.txt",
        "datasets/linked/metadata.jsonl": "metadata.jsonl", "datasets/linked/deep": "deep", "datasets/foreign/manifest.parquet": MANIFEST,
        "datasets/folder": "", "datasets/masked/masks/a.png": "private.png", "pictures/planted.png": "private.png", "pictures/deep": "deep",
        "runs/one/previews/000030_0.png": "private.png", "trials/one/pictures/planted.png": "private.png", "masks": "",
    }.items():  # fmt: skip
        (home / name).symlink_to(neighbour / target)


def leaks(place: Path) -> list[str]:
    """Where in the workspace and the cache something of the neighbour's stands: its word, its picture's bytes, their hash, or its size. Links are no copies."""
    picture = (place / "neighbour" / "private.png").read_bytes()
    digest = hashlib.sha256(picture).hexdigest()
    found = []
    for path in (path for root in ("workspace", "cache", "temporary") for path in (place / root).rglob("*") if path.is_file() and not path.is_symlink()):
        data = path.read_bytes()
        text = data.decode("latin-1") + (json.dumps(_rows(path), default=str) if path.suffix == ".parquet" else "")
        marks = (WORD, digest, f'"width": {SIZE[0]}', f"{SIZE[0]} x {SIZE[1]}", f"{SIZE[0]}x{SIZE[1]}")
        found += [f"{path.relative_to(place)}: {mark}" for mark in marks if mark in text]
        found += [f"{path.relative_to(place)}: the picture"] if picture in data else []
    return found


def _rows(path: Path) -> Any:
    table = pq.read_table(pa.BufferReader(path.read_bytes()))
    return [table.to_pylist(), str(table.schema.metadata)]


def tells(answer: Answer) -> bool:
    """Whether an answer holds anything of the neighbour's."""
    return WORD in answer.text or f'"width":{SIZE[0]}' in answer.text or "iVBOR" in answer.text


def test_a_persons_own_command_follows_a_persons_links(place: Path) -> None:
    plant(place)
    linked = place / "workspace" / "datasets" / "linked"
    (linked / "metadata.jsonl").unlink()
    rows = {row.file: row for row in adopt(linked)[0].rows}
    assert (rows["planted.png"].width, rows["planted.png"].height) == SIZE and WORD in rows["planted.png"].caption and WORD in rows["named.png"].caption
    with within(Fence.around([place / "workspace"])):
        manifest, changes = adopt(linked)
    assert [row.file for row in manifest.rows] == ["named.png", "tears.png"] and all(not row.caption for row in manifest.rows)
    assert sorted(changes.outside) == ["named.txt", "planted.png"]


def test_what_was_decided_of_a_picture_is_not_lost_where_it_became_a_link(place: Path) -> None:
    plant(place)
    linked = place / "workspace" / "datasets" / "linked"
    (linked / "metadata.jsonl").unlink()
    adopt(linked)[0].save()
    before = sha256_file(linked / MANIFEST)
    with within(Fence.around([place / "workspace"])), pytest.raises(DatasetError, match=r"planted\.png.*--folder"):
        adopt(linked)
    assert sha256_file(linked / MANIFEST) == before


def test_every_route_that_reads_tells_nothing_of_what_links_lead_to(place: Path, client: TestClient) -> None:
    plant(place)
    folders, answered = [f"datasets/{name}" for name in ("linked", "foreign", "folder", "masked", "linked/deep")], set[tuple[str, str]]()
    for route in client.app.routes:
        seed = SEEDS.get(route.path, {})
        if "GET" not in (getattr(route, "methods", None) or ()) or "{" in route.path:
            continue
        queries = [{**seed, key: name} for key in ("dataset", "name") if key in seed for name in folders] or [seed]
        queries += [{**seed, "name": f"{folder}/planted.png"} for folder in ("datasets/linked", "pictures", "datasets/folder")] if "name" in seed else []
        for query in queries:
            answer = client.get(route.path, params={key: value for key, value in query.items() if isinstance(value, str)})
            assert answer.status_code < 500 and not tells(answer), (route.path, query, answer.text[:500])
            if answer.status_code == 200:
                answered.add((route.path, query.get("dataset", "")))
    assert {(f"/api/pictures/{what}", "datasets/linked") for what in ("sheet", "rows", "clusters", "buckets")} <= answered
    assert not leaks(place)


def test_a_page_says_what_it_passed_over(place: Path, client: TestClient) -> None:
    plant(place)
    about = client.get("/api/pictures/sheet", params={"dataset": "datasets/linked"}).json()
    assert about["filters"]["all"] == 2
    for word in ("3 files", "planted.png", "named.txt", "--folder"):
        assert word in about["outside"]
    assert client.get("/api/pictures/sheet", params={"dataset": "datasets/cats"}).json()["outside"] == ""
    shown = client.get("/api/draw/history", params={"limit": "20"}).json()["pictures"]
    assert len(shown) == 4, "what a link leads to is not listed, and the rest is"
    known = {one["folder"]: one for one in client.get("/api/pictures/datasets").json()["datasets"]}
    assert "outside" in known["datasets/foreign"]["fault"] and known["datasets/linked"]["pictures"] == 2 and "datasets/folder" not in known


NAMES = ("../../../neighbour/private.png", "{place}/neighbour/private.png", "a/../../../../neighbour/private.png", "/etc/passwd", "C:/private.png", "..")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("column", ["file", "mask"])
def test_a_manifest_that_names_what_lies_outside_is_none(place: Path, client: TestClient, name: str, column: str) -> None:
    batch = client.post("/api/uploads/new", json={}).json()["folder"]
    source = place / "temporary"
    row = {"file": "a.png", column: name.format(place=place)}
    Manifest(source, ()).but([Row(**row)]).save()
    sent = client.put(f"/api/uploads/{Path(batch).name}", params={"name": MANIFEST}, content=(source / MANIFEST).read_bytes())
    assert sent.status_code == 200
    for path, tree in (("/api/pictures/verdict", {"word": "keep", "files": [row["file"]]}), ("/api/pictures/choose", {"by": "x", "files": [row["file"]]})):
        answer = client.post(path, json={"dataset": batch, **tree})
        assert answer.status_code == 400 and "no name below the folder" in answer.json()["error"]
    assert client.get("/api/pictures/sheet", params={"dataset": batch}).status_code == 400
    with within(Fence.around([place / "workspace"])), pytest.raises(DatasetError, match="no name below the folder"):
        Manifest.open(place / "workspace" / batch)


@pytest.mark.parametrize("file", NAMES[:4])
def test_a_trial_that_names_what_lies_outside_shows_none_of_it(place: Path, client: TestClient, file: str) -> None:
    """A trial.json can be dropped into a page: its pictures are looked at before they are shown, in the rating and in the report."""
    result = json.loads((place / "workspace" / "trials" / "one" / "trial.json").read_text())
    result["pictures"] = [{**row, "file": file.format(place=place)} for row in result["pictures"]]
    batch = client.post("/api/uploads/new", json={}).json()["folder"]
    assert client.put(f"/api/uploads/{Path(batch).name}", params={"name": "trial.json"}, content=json.dumps(result).encode()).status_code == 200
    begun = client.post("/api/compare/rate/begin", json={"trial": batch, "rater": "ann", "pairs": 6})
    assert begun.status_code in (400, 403) and not tells(begun)
    published = client.post("/api/compare/rate/publish", json={"trial": batch})
    assert published.status_code < 500 and not tells(published) and not leaks(place)


def test_a_table_or_a_caption_that_names_a_file_brings_no_file(place: Path, client: TestClient) -> None:
    """Nobody reads a name in a caption as more than words, and a table from a page names addresses alone."""
    batch = Path(client.post("/api/uploads/new", json={}).json()["folder"]).name
    table = json.dumps({"file_name": "../../neighbour/private.png", "text": "x"}) + "\n"
    client.put(f"/api/uploads/{batch}", params={"name": "names.jsonl"}, content=table.encode())
    answer = client.post("/api/pictures/bring", json={"batch": batch, "name": "new", "column": "file_name"})
    assert answer.status_code == 403 and "names a file of this machine" in answer.json()["error"] and not leaks(place)


@pytest.mark.parametrize("plain", [True, False])
def test_a_training_leaves_nothing_out_in_silence(place: Path, plain: bool) -> None:
    folder = place / "workspace" / "mine"
    folder.mkdir()
    for cat in sorted((place / "workspace" / "datasets" / "cats").glob("*.png"))[:2]:
        shutil.copy(cat, folder)
    if not plain:
        adopt(folder)[0].save()
    (folder / f"{cat.stem}.txt").symlink_to(place / "neighbour" / "private.txt")
    assert any(WORD in photo.caption for photo in read_folder(folder, "a cat"))
    with within(Fence.around([place / "workspace"])), pytest.raises(DatasetError, match=rf"{cat.stem}\.txt.*--folder"):
        read_folder(folder, "a cat")


@pytest.mark.parametrize("screened", [True, False])
def test_a_folder_elsewhere_is_refused_as_such(place: Path, screened: bool) -> None:
    """As of a run that was trained on it from a terminal, and is gone on with from a page."""
    if not screened:
        (place / "neighbour" / MANIFEST).unlink()
    for look in (adopt, lambda folder: read_folder(folder, "a cat"), lambda folder: find_masks(folder, ["private.png"])):
        with within(Fence.around([place / "workspace"])), pytest.raises(Outside, match=r"neighbour.*--folder"):
            look(place / "neighbour")


def test_collecting_brings_nothing_that_links_or_names_lead_to(place: Path) -> None:
    plant(place)
    linked, table = place / "workspace" / "datasets" / "linked", place / "workspace" / "table.csv"
    (linked / "metadata.jsonl").unlink()
    names = ("../neighbour/private.png", str(place / "neighbour" / "private.png"), "datasets/linked/planted.png", "datasets/linked/named.png")
    table.write_text("\n".join(("url", *names)))
    stand([place / "workspace"])
    try:
        for link in (False, True):
            for source, failed in ((linked, 1), (table, 2)):
                found = collect(Collect(source, place / "workspace" / f"{source.stem}-{link}", Wanted(follow_links=True), link=link))
                assert found.new > 0 and found.failed == {"a file outside of the studio's folders": failed}, found
    finally:
        stand(())
    assert not leaks(place)


# ---- what pages order -------------------------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def ended(studio: Studio) -> Iterator[None]:
    """Nothing of the workspace is left running."""
    yield
    home = str(studio.grounds.workspace)
    left = [one for one in psutil.process_iter(["cmdline"]) if one.pid != os.getpid() and home in " ".join(one.info["cmdline"] or ())]
    for process in left:
        process.kill()
    psutil.wait_procs(left, timeout=60)


def done(client: TestClient, path: str, tree: dict[str, Any]) -> list[dict[str, Any]]:
    """What came of the jobs that a page ordered."""
    answer = client.post(path, json=tree)
    assert answer.status_code == 200, answer.text
    orders = answer.json().get("orders") or [answer.json()["order"]]
    return [until(lambda order=order: _ended(client.get(f"/api/jobs/{order}").json()), 600) for order in orders]


def _ended(job: dict[str, Any]) -> dict[str, Any] | None:
    return job if job["state"] not in ("waiting", "running") else None


@pytest.mark.usefixtures("ended")
def test_screening_and_captioning_bring_nothing_of_the_neighbours_into_the_workspace(place: Path, client: TestClient) -> None:
    plant(place)
    linked, dataset = place / "workspace" / "datasets" / "linked", {"dataset": "datasets/linked"}
    (screened,) = done(client, "/api/pictures/screen", {**dataset, "smallest": 64, "without": ["compression"]})
    (captioned,) = done(client, "/api/pictures/caption", {**dataset, "by": "template", "template": "a picture of TOK", "subject": "TOK"})
    for job in (screened, captioned):
        assert job["state"] == "done", (job["message"], job["log"])
        assert "passed over 3 files (planted.png, metadata.jsonl, named.txt)" in job["log"]
    rows = Manifest.open(linked).rows
    assert [row.file for row in rows] == ["named.png", "tears.png"]
    assert all(dict(row.captions) == {"template": "a picture of TOK"} and row.verdict for row in rows), "the rest is done as ever"
    assert not leaks(place)
    (linked / "metadata.jsonl").unlink()
    adopt(linked)[0].save()
    assert any(WORD in leak for leak in leaks(place)), "the person's own command finds it, and the search finds that"


@pytest.mark.usefixtures("ended")
def test_masks_and_a_foreign_manifest_are_refused_in_words(place: Path, client: TestClient) -> None:
    plant(place)
    (masked,) = done(client, "/api/pictures/prepare", {"dataset": "datasets/masked", "masks": "datasets/masked/masks"})
    (foreign,) = done(client, "/api/pictures/screen", {"dataset": "datasets/foreign"})
    for job in (masked, foreign):
        assert job["state"] == "failed" and "outside of the studio's folders" in job["message"], (job["message"], job["log"])
        assert "fault of Darkroom" not in job["message"]
    assert not leaks(place)
