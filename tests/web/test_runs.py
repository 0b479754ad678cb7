"""Runs and adapters: what was made from what, and orders that write nothing over and lead nowhere outside."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save, save_file
from starlette.testclient import TestClient

from darkroom.jobs.queue import Command, Line
from darkroom.train.recipe import load_recipe
from darkroom.train.run import Run
from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.studio import Studio

OWN = {"X-Darkroom": "1"}
TENSORS = {"lora_unet_x.lora_down.weight": np.zeros((2, 2), np.float32)}
HOSTILE = ("../secret.safetensors", "/etc/passwd", "s3://b/x", "C:/x", "link/x", ".darkroom/x", "a\\b")


class Quiet(Line):
    """A queue that takes orders and carries none out."""

    def __init__(self, studio: Path) -> None:
        super().__init__(studio)
        self.orders: list[Command] = []

    def put(self, order: Any) -> str:
        self.orders.append(order)
        return f"{len(self.orders):06d}-aaaaaa"

    def list(self, limit: int = 50, before: str | None = None, page: str | None = None, device: str | None = None) -> list[dict[str, Any]]:
        return []


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    place = tmp_path / "workspace"
    (place / "cats").mkdir(parents=True)
    (tmp_path / "secret").mkdir()
    (place / "link").symlink_to(tmp_path / "secret")
    save_file(TENSORS, tmp_path / "secret.safetensors")
    recipe = load_recipe("demo", data={"images": "cats", "subject": "TOK cat"})
    facts = {"pictures": [{}], "pictures_sha256": "p", "base_sha256": "b", "device": "cpu", "preflight": {"pictures": 1, "steps": 4}}
    run = Run.create(place / "runs" / "one", recipe, facts | {"result": {"steps": 4, "adapter_sha256": "c" * 64}})
    save_file(TENSORS, run.product, {"modelspec.trigger_phrase": "TOK cat"})
    for step in (2, 4):
        folder = run.folder / "steps" / f"{step:06d}"
        folder.mkdir(parents=True)
        save_file(TENSORS, folder / "adapter.safetensors")
        save_file(TENSORS, folder / "state.safetensors")
        (folder / "state.json").write_text("{}")
        run.log({"step": step, "loss": 0.5, "validation": 1 / step})
    return Studio(Grounds.of(place, []), Door(), Quiet(place / ".darkroom"))


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url="http://127.0.0.1", headers=OWN) as found:
        yield found


def ordered(client: TestClient, studio: Studio, what: str, **tree: Any) -> list[str]:
    answer = client.post(f"/api/runs/{what}", json=tree)
    assert answer.status_code == 200, answer.json()
    return list(studio.line.orders[-1].argv)  # type: ignore[attr-defined]


def test_a_run_whole(client: TestClient) -> None:
    found = client.get("/api/runs/run", params={"name": "runs/one"}).json()
    assert found["state"] == "finished" and found["receipt"]["device"] == "cpu" and found["warning"] == ""
    assert [(one["step"], one["held_out"], one["best"]) for one in found["checkpoints"]] == [(2, 0.5, False), (4, 0.25, True)]
    assert [(link["kind"], link["path"]) for link in found["before"]] == [("pictures", "cats"), ("base", None)]
    assert [(link["kind"], link["path"]) for link in found["after"]] == [("adapter", "runs/one/adapter.safetensors")]
    assert 'subject = "TOK cat"' in found["recipe"] and client.get("/runs").status_code == 200


def test_a_damaged_run_is_shown_as_far_as_it_goes(client: TestClient, studio: Studio) -> None:
    (studio.grounds.workspace / "runs" / "one" / "facts.json").write_text("no json")
    found = client.get("/api/runs/run", params={"name": "runs/one"}).json()
    assert found["state"] == "damaged" and "facts.json is no JSON" in found["words"] and found["warning"]


def test_the_adapters_of_the_workspace(client: TestClient) -> None:
    (found,) = client.get("/api/runs/adapters").json()["adapters"]
    assert (found["name"], found["words"], found["path"]) == ("runs/one/adapter.safetensors", "TOK cat", None)


def test_orders_say_what_was_chosen(client: TestClient, studio: Studio) -> None:
    assert ordered(client, studio, "export", run="runs/one", to="exports/one", step=2, weight=0.8, license="mit", name="cat") == [
        "export", "runs/one", "--to", "exports/one", "--weight", "0.8", "--checkpoint", "2", "--name", "cat", "--license", "mit",
    ]  # fmt: skip
    assert ordered(client, studio, "pick", run="runs/one") == ["pick", "runs/one"]
    file = "runs/one/adapter.safetensors"
    assert ordered(client, studio, "convert", file=file, to="diffusers") == ["adapter", "convert", file, "--to", "diffusers"]
    assert ordered(client, studio, "resize", file=file, rank=4, out="adapters/small") == [
        "adapter", "resize", file, "--rank", "4", "--out", "adapters/small.safetensors",
    ]  # fmt: skip
    both = [{"name": file, "weight": 0.5}, {"name": "runs/one/steps/000002/adapter.safetensors", "weight": -1}]
    assert ordered(client, studio, "merge", files=both, how="svd", rank=8, out="adapters/both.safetensors") == [
        "adapter", "merge", f"{file}:0.5", "runs/one/steps/000002/adapter.safetensors:-1", "--out", "adapters/both.safetensors", "--how", "svd", "--rank", "8",
    ]  # fmt: skip


def test_nothing_is_written_over(client: TestClient) -> None:
    file = "runs/one/adapter.safetensors"
    for what, tree in (("export", {"run": "runs/one", "to": "runs"}), ("resize", {"file": file, "rank": 4, "out": file})):
        answer = client.post(f"/api/runs/{what}", json=tree)
        assert answer.status_code == 400 and "is not written over" in answer.json()["error"]


@pytest.mark.parametrize("name", HOSTILE)
def test_no_order_leads_out(client: TestClient, studio: Studio, name: str) -> None:
    file = "runs/one/adapter.safetensors"
    share = {"name": file, "weight": 1}
    for what, tree in (
        ("export", {"run": name, "to": "x"}), ("export", {"run": "runs/one", "to": name}), ("export", {"run": "runs/one", "to": "x", "trial": name}),
        ("pick", {"run": name}), ("convert", {"file": name, "to": "kohya"}), ("resize", {"file": name, "rank": 4, "out": "x"}),
        ("resize", {"file": file, "rank": 4, "out": name}), ("merge", {"files": [share, {"name": name, "weight": 1}], "out": "x"}),
        ("merge", {"files": [share, share], "out": name}), ("adopt", {"name": name}),
    ):  # fmt: skip
        assert client.post(f"/api/runs/{what}", json=tree).status_code == 403, (what, tree)
    for what in ("adapter", "run"):
        assert client.get(f"/api/runs/{what}", params={"name": name}).status_code == 403
    assert studio.line.orders == []  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("what", "tree"),
    [
        ("export", {"license": "no licence!"}), ("export", {"name": "../x"}), ("export", {"name": "--push"}), ("export", {"weight": "1"}),
        ("export", {"weight": 1e9}), ("export", {"step": -1}), ("convert", {"to": "pickle"}), ("resize", {"rank": 0}), ("resize", {"rank": "x"}),
        ("merge", {"how": "svd"}), ("merge", {"how": "x"}), ("merge", {"files": []}), ("merge", {"files": ["x", "y"]}), ("delete", {}),
    ],
)  # fmt: skip
def test_choices_are_checked(client: TestClient, studio: Studio, what: str, tree: dict[str, Any]) -> None:
    file = "runs/one/adapter.safetensors"
    good = {"run": "runs/one", "to": "kohya" if what == "convert" else "new", "file": file, "out": "new", "rank": 0 if what == "merge" else 4}
    shares = {"files": [{"name": file, "weight": 1}, {"name": "runs/one/steps/000002/adapter.safetensors", "weight": 1}]}
    assert client.post(f"/api/runs/{what}", json=good | shares | tree).status_code in (400, 403)
    assert studio.line.orders == []  # type: ignore[attr-defined]


def test_an_uploaded_adapter_is_put_with_the_others(client: TestClient, studio: Studio) -> None:
    names = []
    for _ in range(2):
        batch = client.post("/api/uploads/new", json={}).json()["batch"]
        name = client.put(f"/api/uploads/{batch}", params={"name": "thor.safetensors"}, content=save(TENSORS)).json()["name"]
        names.append(client.post("/api/runs/adopt", json={"name": name}).json()["name"])
    assert names == ["adapters/thor.safetensors", "adapters/thor-2.safetensors"]
    assert {one["name"] for one in client.get("/api/runs/adapters").json()["adapters"]} == {*names, "runs/one/adapter.safetensors"}
    assert client.post("/api/runs/adopt", json={"name": "runs/one/adapter.safetensors"}).status_code == 403
