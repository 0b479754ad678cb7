"""Train: what the form gets, what is refused of what it sends, the preflight before the order, and a run as its files tell it."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from darkroom.jobs.form import names, specs, texts
from darkroom.jobs.queue import Command, Line
from darkroom.pocket import CATS
from darkroom.spec import Spec
from darkroom.train.recipe import Recipe
from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.pages.train_values import wanted
from darkroom.web.studio import Studio

OWN = {"X-Darkroom": "1"}
HOSTILE = ("../secret", "/etc", "C:/x", "s3://bucket/x", "a\\b", "~/x", ".darkroom/orders", "link", "link/x", "cats/../../secret", "a:b", "nul", "@photos/../x")


class Quiet(Line):
    """A queue that takes orders and carries none out."""

    def __init__(self, studio: Path) -> None:
        super().__init__(studio)
        self.orders: list[Command] = []
        self.jobs: list[dict[str, Any]] = []

    def put(self, order: Any) -> str:
        self.orders.append(order)
        return f"{len(self.orders):06d}-aaaaaa"

    def list(self, limit: int = 50, before: str | None = None, page: str | None = None, device: str | None = None) -> list[dict[str, Any]]:
        return self.jobs


@pytest.fixture
def studio(tmp_path: Path) -> Studio:
    place, photos = tmp_path / "workspace", tmp_path / "photos"
    (place / ".darkroom").mkdir(parents=True)
    (place / "cats").mkdir()
    photos.mkdir()
    for path in (CATS / "train").iterdir():
        (place / "cats" / path.name).write_bytes(path.read_bytes())
    (tmp_path / "secret").mkdir()
    (place / "link").symlink_to(tmp_path / "secret")
    return Studio(Grounds.of(place, [photos]), Door(), Quiet(place / ".darkroom"))


@pytest.fixture
def client(studio: Studio) -> Iterator[TestClient]:
    with TestClient(create_app(studio), base_url="http://127.0.0.1", headers=OWN) as found:
        yield found


@pytest.fixture
def values(client: TestClient) -> dict[str, Any]:
    found: dict[str, Any] = client.get("/api/train/recipe", params={"name": "demo"}).json()["values"]
    found["data"] |= {"images": "cats", "subject": "TOK cat"}
    return found


def asked(client: TestClient, what: str, values: Any, recipe: str = "demo", **more: Any) -> Any:
    return client.post(f"/api/train/{what}", json={"recipe": recipe, "values": values, **more})


def test_what_the_form_is_made_from(client: TestClient) -> None:
    found = client.get("/api/train/form").json()
    assert found["schema"]["properties"].keys() == Recipe.model_fields.keys()
    assert found["schema"]["$defs"]["Data"]["properties"]["images"]["names"] == "place"
    assert {"demo", "cat-lora"} <= {one["name"] for one in found["recipes"]} and found["devices"][-1]["name"] == "cpu"
    assert client.get("/train").status_code == 200
    assert client.get("/api/train/choices").json()["pictures"] == [["cats", 6]]


def test_values_become_a_command_that_means_them(client: TestClient, values: dict[str, Any]) -> None:
    values["train"]["length"] = "9 steps"
    values["method"] = {"kind": "lycoris", "algorithm": "lokr"}
    found = asked(client, "plan", values).json()
    assert tomllib.loads(found["toml"])["method"] == {"kind": "lycoris", "algorithm": "lokr"}
    assert found["command"].startswith("darkroom train demo --images cats --subject 'TOK cat' --set ") and "'train.length=9 steps'" in found["command"]
    other = asked(client, "plan", values | {"negative": True}).json()
    assert other["stamp"] != found["stamp"] and asked(client, "plan", values).json()["stamp"] == found["stamp"]


def test_mistakes_name_their_key(client: TestClient, values: dict[str, Any]) -> None:
    values["data"]["batch_size"] = 0
    answer = asked(client, "plan", values)
    assert answer.status_code == 400 and answer.json()["error"].startswith("the form: data.batch_size = 0: ")
    del values["data"]["batch_size"]
    values["train"]["lenght"] = "5 steps"
    assert 'there is no key "train.lenght". Did you mean "length"?' in asked(client, "plan", values).json()["error"]
    for bad in (None, [], "x", 5):
        assert asked(client, "plan", bad).status_code == 403


def filled(text: str) -> list[dict[str, Any]]:
    """Recipes that together have every key that names a place or a model, each holding the text."""
    base = {"base": text, "base_config": text, "validation": {"pictures": text}, "preview": {"base": text}}
    data = {"images": text, "subject": "TOK cat", "prior": {"pictures": text, "prompt": "a cat"}}
    learned = {"kind": "controlnet", "condition": "as_is", "pairs": text, "depth_model": text, "start": text}
    return [base | {"data": data}, {"data": {"images": text, "subject": "TOK cat"}, "method": learned}]


def test_every_key_that_names_something_is_tried_here() -> None:
    keys = {key for tree in filled("x") for key, _, _ in texts(Recipe.from_tree(tree, "x"))}
    known = {f"{cls.__name__}.{field}" for cls in specs() for field in cls.model_fields if names(cls, field) in ("place", "model")}
    assert len(keys) == len(known), f"a new key names something: add it to `filled`: {known} {keys}"


@pytest.mark.parametrize("text", HOSTILE)
def test_no_key_leads_out_of_the_grounds(client: TestClient, text: str) -> None:
    for tree in filled(text):
        for key in [key for key, _, held in texts(Recipe.from_tree(tree, "x")) if held == text]:
            answer = asked(client, "plan", alone(tree, key))
            assert answer.status_code == 403 and f"the form: {key} = " in answer.json()["error"], (key, answer.json())


def alone(tree: dict[str, Any], kept: str) -> dict[str, Any]:
    """The tree with harmless names but at one key."""

    def tamed(value: Any, path: str) -> Any:
        if isinstance(value, dict):
            return {key: tamed(inner, f"{path}.{key}".lstrip(".")) for key, inner in value.items()}
        return "cats" if path in names_in and path != kept else value

    names_in = {key for key, _, _ in texts(Recipe.from_tree(tree, "x"))}
    found: dict[str, Any] = tamed(tree, "")
    return found


def test_a_key_of_tomorrow_is_confined(studio: Studio, monkeypatch: pytest.MonkeyPatch) -> None:
    from pydantic import Field

    class Later(Recipe):
        style: str = Field("", description="What nobody has thought of yet.")
        more: tuple[str, ...] = ()

    monkeypatch.setattr("darkroom.web.pages.train_values.Recipe", Later)
    for tree in ({"style": "/etc"}, {"more": ["cats", "../x"]}):
        with pytest.raises(Exception, match=r"the form: (style|more) = "):
            wanted(studio.grounds, tree)
    found: Spec = wanted(studio.grounds, {"style": "cats", "more": ["@photos"]})
    assert (found.style, found.more) == ("cats", (str(studio.grounds.others["photos"]),))  # type: ignore[attr-defined]


def test_models_may_be_on_the_hub_and_pictures_not(client: TestClient, values: dict[str, Any]) -> None:
    values["base"] = "stabilityai/stable-diffusion-xl-base-1.0"
    assert "--base stabilityai/stable-diffusion-xl-base-1.0" in asked(client, "plan", values).json()["command"]
    for bad in ("../x/y", "a/../../b", "/models/x", "https://huggingface.co/a/b", "link/model"):
        assert asked(client, "plan", values | {"base": bad}).status_code == 403
    values["data"]["images"] = "-cats"
    assert "--images ./-cats" in asked(client, "plan", values).json()["command"]


def test_a_word_names_no_file_elsewhere(client: TestClient, values: dict[str, Any]) -> None:
    values["method"] = {"kind": "inversion", "word": "../../evil"}
    assert asked(client, "plan", values).status_code == 403


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "cats/x.toml", "cats", "no-such", "", "link/x.toml", "x" * 2000, ".darkroom/x.toml"])
def test_only_recipes_are_read(client: TestClient, name: str) -> None:
    assert client.get("/api/train/recipe", params={"name": name}).status_code in (400, 403)
    assert asked(client, "plan", {}, recipe=name).status_code in (400, 403)


def test_a_recipe_of_ones_own_is_offered(client: TestClient, studio: Studio) -> None:
    folder = studio.grounds.workspace / "recipes"
    folder.mkdir()
    (folder / "mine.toml").write_text(f'about = "mine"\n[data]\nimages = "{studio.grounds.workspace / "cats"}"\n')
    (folder / "broken.toml").write_text("about = 5")
    offered = [one["name"] for one in client.get("/api/train/form").json()["recipes"]]
    assert offered[-1] == "recipes/mine.toml" and "recipes/broken.toml" not in offered
    assert client.get("/api/train/recipe", params={"name": "recipes/mine.toml"}).json()["values"]["data"]["images"] == "cats"


def test_nothing_is_ordered_without_a_preflight_of_these_very_values(client: TestClient, studio: Studio, values: dict[str, Any]) -> None:
    assert asked(client, "start", values).status_code == 403
    values["train"]["length"] = "4 steps"
    checked = asked(client, "check", values).json()
    assert checked["preflight"]["steps"] == 4 and checked["preflight"]["memory_mib"]["total"] > 0 and len(checked["preflight"]["captions"]) == 6
    assert asked(client, "start", values | {"negative": True}).status_code == 403
    made = asked(client, "start", values, name="mine").json()
    (order,) = studio.line.orders  # type: ignore[attr-defined]
    assert made["run"] == "runs/mine-001" and order.argv[-2:] == ("--out", "runs/mine-001") and order.page == "train"
    (studio.grounds.workspace / "runs" / "mine-001").mkdir(parents=True)
    assert asked(client, "start", values, name="mine").json()["run"] == "runs/mine-002"
    for bad in ("../x", "a/b", ".x", "-x"):
        assert asked(client, "start", values, name=bad).status_code == 403


def test_a_preflight_that_fails_says_why(client: TestClient, values: dict[str, Any]) -> None:
    values["data"]["images"] = "nowhere"
    answer = asked(client, "check", values)
    assert answer.status_code == 400 and "there is no such folder" in answer.json()["error"] and answer.json()["kind"] == "DatasetError"


def run_of(studio: Studio, name: str = "one", steps: int = 3) -> Path:
    """A run folder as a training that goes on would have it."""
    folder = studio.grounds.workspace / "runs" / name
    (folder / "previews").mkdir(parents=True)
    recipe = Recipe.from_tree({"data": {"images": "cats", "subject": "TOK cat"}}, "x")
    (folder / "recipe.toml").write_text(recipe.to_toml())
    (folder / "facts.json").write_text(json.dumps({"preflight": {"pictures": 6, "steps": 9}, "device": "cpu"}))
    (folder / "previews" / "000000_0.png").write_bytes(b"png")
    with (folder / "log.jsonl").open("w") as log:
        log.writelines(json.dumps({"step": step, "loss": 0.5, "seconds": 0.1}) + "\n" for step in range(1, steps + 1))
    return folder


def test_a_run_of_the_command_line_is_watched_by_its_files(client: TestClient, studio: Studio) -> None:
    folder = run_of(studio)
    found = client.get("/api/train/run", params={"name": "runs/one"}).json()
    assert (found["state"], found["done"], found["total"], len(found["rows"]), found["order"]) == ("training", 3, 9, 3, None)
    assert found["frames"][0]["name"] == "runs/one/previews/000000_0.png" and found["prompts"] == ["a photo of TOK cat"]
    assert found["left"] == pytest.approx(0.6)
    with (folder / "log.jsonl").open("a") as log:
        log.write('{"step": 4, "loss": 0.4}\n')
    more = client.get("/api/train/run", params={"name": "runs/one", "after": found["after"]}).json()
    assert [row["step"] for row in more["rows"]] == [4] and not more["anew"] and more["done"] == 4


def test_orders_and_runs_are_one_list(client: TestClient, studio: Studio) -> None:
    run_of(studio)
    plain = dict.fromkeys(("wish", "place", "title", "device", "message", "again", "followed_by", "progress", "began", "ended"))
    job = plain | {"id": "000001-aaaaaa", "run": "runs/one", "state": "paused", "command": "train", "put": 1.0, "ended": 9e9}
    studio.line.jobs = [job | {"id": "000002-aaaaaa", "run": "runs/two", "state": "waiting"}, job]  # type: ignore[attr-defined]
    found = client.get("/api/train/runs").json()["runs"]
    assert [(run["run"], run["state"]) for run in found] == [("runs/two", "waiting"), ("runs/one", "paused")]
    assert client.get("/api/train/run", params={"name": "runs/two"}).json()["state"] == "waiting"


@pytest.mark.parametrize("name", HOSTILE)
def test_no_run_outside_is_looked_at(client: TestClient, name: str) -> None:
    assert client.get("/api/train/run", params={"name": name}).status_code == 403
    assert client.post("/api/train/resume", json={"run": name}).status_code == 403


def test_no_page_needs_torch(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from starlette.testclient import TestClient
from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.studio import Studio
client = TestClient(create_app(Studio(Grounds.of(Path({str(tmp_path)!r}), []), Door())), base_url="http://127.0.0.1", headers={{"X-Darkroom": "1"}})
for address in ("train", "runs", "api/train/form", "api/train/recipe?name=cat-lora", "api/train/choices", "api/train/runs", "api/runs/adapters"):
    assert client.get("/" + address).status_code == 200, address
assert client.post("/api/train/plan", json={{"recipe": "demo", "values": {{"data": {{"subject": "TOK cat"}}}}}}).status_code == 200
print([name for name in ("torch", "transformers", "diffusers", "peft") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout.strip() == "[]", done.stderr
