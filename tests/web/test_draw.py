"""Draw: how prompts are read while they are typed, what an order is, history, and requests that come back out of pictures."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from starlette.testclient import TestClient

from darkroom.jobs.gallery import gallery
from darkroom.jobs.reading import reading
from darkroom.sampling.request import Request, Worn, read_request, save_png
from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.studio import Studio


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    return Studio(Grounds.of(tmp_path, []), Door())


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url="http://127.0.0.1", headers={"X-Darkroom": "1"}) as found:
        yield found


@pytest.fixture
def orders(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is put into the queue; nothing is started."""
    found: list[Any] = []
    monkeypatch.setattr(type(studio.line), "put", lambda line, order: found.append(order) or "000001-aaaaaa")
    return found


def drawn(folder: Path, name: str, age: float = 0, **fields: Any) -> Path:
    path = folder / "pictures" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    save_png(Image.new("RGB", (8, 8), (9, 9, 9)), Request(prompt="a cat", **fields), path)
    os.utime(path, (1e9 - age, 1e9 - age))
    return path


@pytest.mark.parametrize(
    ("text", "spans"),
    [
        ("a (red:1.3) cat", [("a ", 1.0), ("red", 1.3), (" cat", 1.0)]),
        ("a (big)++ cat", [("a", 1.0), ("big", 1.21), ("cat", 1.0)]),
        ("well-known (plain words", [("well-known (plain words", 1.0)]),
    ],
)
def test_weights_as_a_person_types(text: str, spans: list[tuple[str, float]]) -> None:
    (stage,) = reading(text).stages
    assert [(span["text"], round(span["weight"], 6)) for span in stage["spans"]] == spans


def test_compels_weights_are_compels_own() -> None:
    """Against the package itself, which brings torch."""
    from compel.prompt_parser import PromptParser

    for text in ("a (big hat)++ on a small-- cat", '"two words"1.4 and more', "(a (nested)+ one)-", '("a cat", "a dog").and()'):
        theirs = [(f.text, f.weight) for prompt in PromptParser().parse_conjunction(text).prompts for f in prompt.children]
        (stage,) = reading(text, "compel").stages
        assert [(span["text"], span["weight"]) for span in stage["spans"]] == theirs


def test_stages_tags_tokens_and_mistakes() -> None:
    told = reading("a [cat:dog:0.5] <lora:thor:0.8> <lora:other>", known={"thor"})
    assert [stage["from"] for stage in told.stages] == [0, 12]
    assert [(tag["name"], tag["weight"], tag["known"]) for tag in told.tags] == [("thor", 0.8, True), ("other", 1.0, False)]
    assert reading("cat " * 80).tokens == 80 and reading("cat " * 80).chunks == 2
    assert "two languages" in reading("(a)++ (b:1.2)").error
    assert "names no list" in reading("@nothing").error


def test_an_order_has_counted_seeds_and_exact_large_ones(client: TestClient, orders: list[Any]) -> None:
    answer = client.post("/api/draw", json={"request": {"prompt": "a cat", "seed": str((1 << 63) - 2)}, "count": 3, "device": "cpu"})
    assert answer.status_code == 200, answer.text
    assert [one.seed for one in orders[0].requests] == [(1 << 63) - 2, (1 << 63) - 1, 0]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"steps": 0}, "steps"), ({"prompt": 3}, "prompt"), ({"stepz": 3}, 'Did you mean "steps"'), ({"mask": "m.png"}, "m.png"), ({"sampler": "x"}, "sampler")],
)
def test_a_wrong_request_is_said(client: TestClient, orders: list[Any], wrong: dict[str, Any], words: str) -> None:
    answer = client.post("/api/draw", json={"request": {"prompt": "a", **wrong}})
    assert answer.status_code in (400, 403) and words in answer.json()["error"] and not orders


@pytest.mark.parametrize("name", ["../secret.png", "/etc/passwd", "none.png", "C:\\x.png", "s3://bucket/x", "link/x.png", "~/x"])
@pytest.mark.parametrize("key", ["base", "adapters", "embeddings", "image", "mask", "keep", "refiner", "model", "control"])
def test_a_request_names_nothing_outside(
    client: TestClient, studio: Studio, orders: list[Any], tmp_path_factory: pytest.TempPathFactory, key: str, name: str
) -> None:
    (studio.grounds.workspace / "link").symlink_to(tmp_path_factory.mktemp("outside"))
    drawn(studio.grounds.workspace, "start.png")
    tree: dict[str, Any] = {"prompt": "a", "image": "pictures/start.png"}
    match key:
        case "adapters" | "embeddings":
            tree[key] = [{"file": name}]
        case "refiner":
            tree[key] = {"model": name}
        case "model" | "control":
            tree["controls"] = [{"model": "owner/name", "image": "pictures/start.png"} | {("image" if key == "control" else "model"): name}]
        case _:
            tree[key] = name
    assert client.post("/api/draw", json={"request": tree}).status_code == 403 and not orders


def test_history_is_newest_first_and_pages_lose_and_repeat_nothing(studio: Studio, client: TestClient) -> None:
    for number in range(25):
        drawn(studio.grounds.workspace, f"{number % 3}/{number:04d}.png", age=number // 4)  # four of each second
    seen: list[str] = []
    query: dict[str, Any] = {"limit": 7}
    while page := client.get("/api/draw/history", params=query).json()["pictures"]:
        seen += [one["name"] for one in page]
        query |= {"before": page[-1]["changed"], "name": page[-1]["name"]}
    assert len(seen) == len(set(seen)) == 25
    assert [one.path.name for one in gallery(studio.grounds.workspace, 4)] == [f"{number:04d}.png" for number in (0, 3, 1, 2)]


def test_a_pictures_request_comes_back_with_names_of_the_workspace(studio: Studio, client: TestClient) -> None:
    home = studio.grounds.workspace
    drawn(home, "start.png")
    (home / "runs" / "cat").mkdir(parents=True)
    worn = (Worn(file=str(home / "runs" / "cat"), weight=0.5, sha256="ab"), Worn(file="/elsewhere/x.safetensors"))
    drawn(home, "it.png", image=str(home / "pictures" / "start.png"), strength=0.5, adapters=worn, seed=(1 << 62) + 1)
    told = client.get("/api/draw/request", params={"name": "pictures/it.png"}).json()
    assert told["request"]["image"] == "pictures/start.png" and told["request"]["adapters"][0] == {
        "file": "runs/cat",
        "weight": 0.5,
        "text_weight": None,
        "branch": "both",
    }
    assert told["request"]["seed"] == str((1 << 62) + 1) and told["missing"] == ["/elsewhere/x.safetensors"]


def test_a_picture_without_request_says_so(studio: Studio, client: TestClient) -> None:
    (studio.grounds.workspace / "pictures").mkdir()
    Image.new("RGB", (8, 8)).save(studio.grounds.workspace / "pictures" / "plain.png")
    answer = client.get("/api/draw/request", params={"name": "pictures/plain.png"})
    assert answer.status_code == 400 and "carries no Darkroom request" in answer.json()["error"]


def test_drawing_again_is_an_order_and_not_for_a_request_that_leads_outside(studio: Studio, client: TestClient, orders: list[Any]) -> None:
    drawn(studio.grounds.workspace, "it.png", precision="float32")
    assert client.post("/api/draw/again", json={"name": "pictures/it.png"}).status_code == 200
    assert orders[0].requests == (read_request(studio.grounds.workspace / "pictures" / "it.png"),) and not orders[0].fill and orders[0].precision == "fp32"
    drawn(studio.grounds.workspace, "bad.png", image="/etc/passwd")
    assert client.post("/api/draw/again", json={"name": "pictures/bad.png"}).status_code == 403 and len(orders) == 1


def test_thrown_away_and_taken_back(studio: Studio, client: TestClient) -> None:
    path = drawn(studio.grounds.workspace, "a/it.png")
    content = path.read_bytes()
    back = client.post("/api/draw/trash", json={"name": "pictures/a/it.png"}).json()["back"]
    assert not path.exists() and client.get("/api/draw/history").json()["pictures"] == []
    assert client.post("/api/draw/back", json={"back": back}).json()["name"] == "pictures/a/it.png" and path.read_bytes() == content
    (studio.grounds.workspace / "keep.png").write_bytes(content)
    for name in ("keep.png", "pictures", "pictures/none.png"):
        assert client.post("/api/draw/trash", json={"name": name}).status_code in (400, 403)
    for name in ("../../keep.png", "/etc/passwd", "none.png"):
        assert client.post("/api/draw/back", json={"back": name}).status_code == 400
    assert (studio.grounds.workspace / "keep.png").exists()


def test_typing_loads_no_model_library() -> None:
    import subprocess

    code = (
        "import sys, json; from darkroom.jobs.reading import reading; reading('(a)++ cat'); reading('(a:1.2)');"
        "print(json.dumps([name for name in ('torch', 'transformers') if name in sys.modules]))"
    )
    assert json.loads(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout) == []
