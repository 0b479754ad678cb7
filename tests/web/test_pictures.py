"""The page Pictures as its server answers: rows by filter, edits that are on the disk when they are answered, orders that name nothing outside."""

from __future__ import annotations

import io
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom import pocket
from darkroom.data.manifest import Manifest
from darkroom.data.screening import Screening
from darkroom.jobs.datasets import datasets_below
from darkroom.jobs.screen import screen
from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.studio import Studio

Ask = Callable[..., Any]


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Cats that were screened, and a plain folder beside them."""
    monkeypatch.setenv("DARKROOM_CACHE", str(tmp_path / "cache"))
    place = tmp_path / "workspace"
    shutil.copytree(pocket.CATS / "train", place / "datasets" / "cats")
    Image.open(place / "datasets/cats/pouting-cat.png").resize((128, 128)).save(place / "datasets/cats/pouting-small.png")
    screen(place / "datasets" / "cats", Screening().but(["side.smallest=150"], without=["compression"]))
    (place / "plain").mkdir()
    shutil.copy(pocket.CATS / "held_out" / "crying-cat.png", place / "plain" / "a.png")
    return place


@pytest.fixture
def studio(workspace: Path) -> Studio:
    made = Studio(Grounds.of(workspace, []), Door())
    made.line.starts = False
    return made


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url="http://127.0.0.1", headers={"X-Darkroom": "1"}) as made:
        yield made


@pytest.fixture
def ask(client: TestClient) -> Ask:
    def asked(what: str, code: int = 200, **body: Any) -> Any:
        answer = client.post(f"/api/pictures/{what}", json=body)
        assert answer.status_code == code, answer.text
        return answer.json()

    return asked


def rows(client: TestClient, **asked: Any) -> Any:
    answer = client.get("/api/pictures/rows", params={"dataset": "datasets/cats", **asked})
    assert answer.status_code == 200, answer.text
    return answer.json()


def manifest(workspace: Path) -> dict[str, Any]:
    return {row.file: row for row in Manifest.open(workspace / "datasets" / "cats").rows}


def argv(studio: Studio, order: str) -> list[str]:
    return list(studio.line.look(order)["order"]["argv"])


def upload(client: TestClient, files: dict[str, bytes]) -> str:
    batch = str(client.post("/api/uploads/new", json={}).json()["batch"])
    for name, data in files.items():
        assert client.put(f"/api/uploads/{batch}", params={"name": name}, content=data).status_code == 200
    return batch


def png(seed: int = 0) -> bytes:
    data = io.BytesIO()
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(data, "PNG")
    return data.getvalue()


def test_the_page_and_what_it_lists(client: TestClient) -> None:
    assert "Contact sheet" in client.get("/pictures").text
    listed = {one["folder"]: one for one in client.get("/api/pictures/datasets").json()["datasets"]}
    assert {name: (one["plain"], one["pictures"], one["kept"], one["captioned"]) for name, one in listed.items()} == {
        "datasets/cats": (False, 7, 6, 6),
        "plain": (True, 1, 1, 0),
    }


def test_what_a_run_drew_is_no_dataset(workspace: Path) -> None:
    (workspace / "runs" / "x" / "previews").mkdir(parents=True)
    (workspace / "runs" / "x" / "recipe.toml").write_text("")
    (workspace / "runs" / "x" / "previews" / "a.png").write_bytes(png())
    (workspace / "uploads" / "abcdefabcdef").mkdir(parents=True)
    (workspace / "uploads" / "abcdefabcdef" / "a.png").write_bytes(png())
    (workspace / "datasets" / "broken").mkdir()
    (workspace / "datasets" / "broken" / "manifest.parquet").write_text("no parquet")
    found = {one.folder.name: one.fault for one in datasets_below(workspace)}
    assert set(found) == {"cats", "plain", "broken"}
    assert "damaged" in found["broken"]


def test_rows_come_by_filter_order_and_page_with_their_cut(client: TestClient) -> None:
    found = rows(client, filter="rejected")
    assert [row["file"] for row in found["rows"]] == ["pouting-small.png"]
    assert [reason.partition(": ")[0] for reason in found["rows"][0]["reasons"]] == ["side", "duplicate"]
    page = rows(client, sort="pixels", down="1", **{"from": 2, "count": 3}, base="pocket")
    assert (page["total"], len(page["rows"])) == (7, 3)
    row = page["rows"][0]
    assert (row["cut"]["bucket"], row["cut"]["window"], row["cut"]["lost"], row["kept"]) == ([64, 64], [0, 0, 1, 1], 0, True)
    about = client.get("/api/pictures/sheet", params={"dataset": "datasets/cats"}).json()
    assert (about["filters"]["kept"], about["reasons"], about["clusters"], about["limit"]) == (6, {"side": 1, "duplicate": 1}, 1, 75)
    assert [len(one["rows"]) for one in client.get("/api/pictures/clusters", params={"dataset": "datasets/cats"}).json()["clusters"]] == [2]
    buckets = client.get("/api/pictures/buckets", params={"dataset": "datasets/cats", "base": "pocket", "batch": 4}).json()["training"]
    assert [(one["width"], one["height"], one["pictures"], one["batches"]) for one in buckets["buckets"]] == [(64, 64, 6, {"4": 1, "2": 1})]


@pytest.mark.parametrize("name", ["", ".", "..", "../x", "/etc", ".darkroom", "datasets/none", "@x/y", "C:\\x"])
@pytest.mark.parametrize("where", ["sheet", "rows", "clusters", "buckets", "failures"])
def test_no_dataset_outside_is_looked_into(client: TestClient, where: str, name: str) -> None:
    answer = client.get(f"/api/pictures/{where}", params={"dataset": name})
    assert answer.status_code in (400, 403)
    assert len(answer.json()["error"]) > 10


def test_a_verdict_is_on_the_disk_when_it_is_answered(ask: Ask, client: TestClient, workspace: Path) -> None:
    told = ask("verdict", dataset="datasets/cats", word="keep", files=["pouting-small.png"])
    assert (told["done"], told["filters"]["overruled"]) == (1, 1)
    assert manifest(workspace)["pouting-small.png"].kept
    ask("verdict", dataset="datasets/cats", word="reject", query={"filter": "all", "text": "SMILE"})
    assert sorted(file for file, row in manifest(workspace).items() if row.overruled == "reject") == ["cat-with-wry-smile.png"]
    ask("verdict", dataset="datasets/cats", word="undo", query={"filter": "overruled"})
    assert not any(row.overruled for row in manifest(workspace).values())
    ask("prefer", dataset="datasets/cats", file="pouting-small.png")
    assert {file for file, row in manifest(workspace).items() if row.cluster and row.kept} == {"pouting-small.png"}
    assert "is not in" in ask("verdict", 400, dataset="datasets/cats", word="keep", files=["gone.png"])["error"]
    assert "No picture is chosen" in ask("verdict", 400, dataset="datasets/cats", word="keep", files=[])["error"]
    ask("verdict", 403, dataset="datasets/cats", word="delete", files=["pouting-cat.png"])


def test_two_pages_do_not_lose_each_others_captions(ask: Ask, client: TestClient, workspace: Path) -> None:
    seen = rows(client)["rows"][0]["caption"]
    file = rows(client)["rows"][0]["file"]
    assert ask("captions", dataset="datasets/cats", captions={file: "TOK cat, crying"}, seen={file: seen})["tokens"] == {"TOK cat, crying": 4}
    told = ask("captions", dataset="datasets/cats", captions={file: "mine"}, seen={file: seen})
    assert told["stale"] == {file: "TOK cat, crying"}
    row = manifest(workspace)[file]
    assert (row.caption, row.captions["original"], row.chosen) == ("TOK cat, crying", seen, "hand")
    ask("choose", dataset="datasets/cats", by="original", files=[file])
    assert manifest(workspace)[file].caption == seen


def test_many_captions_change_after_a_look_and_not_behind_anothers_back(ask: Ask, workspace: Path) -> None:
    body = {"dataset": "datasets/cats", "query": {"filter": "all"}, "rewrite": {"how": "replace", "text": "cat", "other": "tiger", "whole_words": True}}
    told = ask("rewrite", **body)
    assert (told["asked"], told["changed"], len(told["shown"])) == (7, 6, 6)
    assert {one["after"] for one in told["shown"]} == {one["before"].replace("cat", "tiger") for one in told["shown"]}
    ask("verdict", dataset="datasets/cats", word="reject", files=["pouting-cat.png"])
    assert "was changed since" in ask("rewrite", 403, **body, apply=True, stamp=told["stamp"])["error"]
    told = ask("rewrite", **body)
    assert ask("rewrite", **body, apply=True, stamp=told["stamp"])["done"] == 6
    captions = [row.caption for row in manifest(workspace).values() if row.caption]
    assert len(captions) == 6
    assert all("tiger" in caption for caption in captions)
    assert "text is missing" in ask("rewrite", 400, **(body | {"rewrite": {"how": "add_tag"}}))["error"]
    assert ask("tokens", texts=["a cat", "", "word " * 80]) == {"tokens": [2, 0, 80], "limit": 75}


def test_what_is_dropped_becomes_two_orders_and_is_removed_when_it_is_collected(ask: Ask, client: TestClient, studio: Studio, workspace: Path) -> None:
    batch = upload(client, {"dogs/a.png": png(1), "dogs/a.txt": b"a dog", "b.png": png(2)})
    told = ask("bring", batch=batch, name="dogs", smallest=64)
    collect, screening = (argv(studio, order) for order in told["orders"])
    source = Path(collect[1])
    assert collect == ["collect", collect[1], "--to", "datasets/dogs", "--link"]
    assert screening == ["screen", "datasets/dogs", "--smallest=64"]
    assert not (workspace / "uploads" / batch).exists()
    assert sorted(path.name for path in (workspace / source).rglob("*.*")) == ["a.png", "a.txt", "b.png"]
    assert client.get("/file", params={"name": f"{source.as_posix()}/b.png"}).status_code == 403
    assert ask("sweep") == {"removed": 0}
    for state in ("failed", "done"):
        assert (workspace / source).is_dir()
        studio.line.shelf.change(studio.line.shelf.find(told["orders"][0]), state=state)
        assert ask("sweep") == {"removed": int(state == "done")}
    assert not (workspace / source.parent).exists()


def test_a_table_names_addresses_and_no_files_of_this_machine(ask: Ask, client: TestClient, studio: Studio, workspace: Path) -> None:
    (workspace.parent / "secret.png").write_bytes(png())
    for bad in ("../../../secret.png", str(workspace.parent / "secret.png"), "plain/a.png"):
        batch = upload(client, {"list.csv": f"url\nhttps://example.org/a.png\n{bad}\n".encode()})
        assert "row 2: names a file of this machine" in ask("bring", 403, batch=batch, name="list")["error"]
        assert studio.line.list() == []
        assert (workspace / "uploads" / batch / "list.csv").is_file()
    batch = upload(client, {"list.csv": b"poster,title\n/a.png,One\n"})
    told = ask("bring", batch=batch, name="posters", column="poster", prefix="https://example.org", caption_column="title")
    words = argv(studio, told["orders"][0])
    assert words[0] == "collect"
    assert words[2:] == ["--to", "datasets/posters", "--column=poster", "--prefix=https://example.org", "--caption-column=title"]
    assert "no such batch" in ask("bring", 403, batch=batch, name="posters")["error"]
    assert "no picture and no table" in ask("bring", 400, batch=upload(client, {"metadata.jsonl": b"{}\n"}), name="x")["error"]
    for name in ("../x", "", ".hidden", "a/b", "x" * 70, "-x"):
        assert "dataset's name" in ask("bring", 403, batch=batch, name=name)["error"]


def test_orders_hold_what_was_asked_and_no_option_more(ask: Ask, studio: Studio, workspace: Path) -> None:
    def order(what: str, **body: Any) -> list[str]:
        return argv(studio, ask(what, dataset="datasets/cats", **body)["orders"][0])

    assert order("screen", without=["dpi"], set=["side.smallest=64"]) == ["screen", "datasets/cats", "--without=dpi", "--set=side.smallest=64"]
    told = order("caption", by="template", template="a cat, {file}", prefix="--sidecars", only_missing=True)
    assert told == ["caption", "datasets/cats", "--with=template", "--template=a cat, {file}", "--prefix=--sidecars", "--only-missing"]
    assert order("caption", by="wd", threshold=0.4, model="plain", choose=False)[3:] == ["--model=plain", "--set=threshold=0.4", "--no-choose"]
    assert order("prepare", held_out="2", focus=True) == ["dataset", "prepare", "datasets/cats", "--held-out=2", "--focus"]
    for body in ({"set": ["unwanted.files=['/etc/passwd']"]}, {"set": ["x"]}, {"with": "text"}):
        ask("screen", 403, dataset="datasets/cats", **body)
    for model in ("/root/.cache", "../x", "~/x"):
        ask("caption", 403, dataset="datasets/cats", by="blip", model=model)
    ask("caption", 403, dataset="datasets/cats", by="shell")
    ask("caption", 400, dataset="datasets/cats", by="wd", threshold=7)
    ask("prepare", 403, dataset="datasets/cats", masks="../masks")


def test_the_cats_are_laid_once_and_again_beside(ask: Ask, studio: Studio, workspace: Path) -> None:
    told = ask("cats")
    assert (told["dataset"], told["pictures"]) == ("datasets/cats-2", 9)
    assert len(list((workspace / "datasets" / "cats-2").glob("*.txt"))) == 6
    assert argv(studio, told["orders"][0]) == ["screen", "datasets/cats-2", "--smallest=64", "--without=compression"]


def test_the_server_looks_at_pictures_without_torch(workspace: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from darkroom.web.app import create_app; from darkroom.jobs.sheet import Sheets, View\n"
        "sheet = Sheets().open(Path(sys.argv[1])); sheet.counts; sheet.overview(View('pocket')).facts\n"
        "print([name for name in ('torch', 'transformers', 'diffusers', 'peft') if name in sys.modules])"
    )
    said = subprocess.run([sys.executable, "-c", code, str(workspace / "datasets" / "cats")], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"
