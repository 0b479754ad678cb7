"""Recipes of one's own: the form kept as a file, settings of other programs brought in, and no file read for it that lies outside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient

from darkroom.web.app import create_app
from darkroom.web.grounds import Grounds
from darkroom.web.guard import Door
from darkroom.web.studio import Studio


@pytest.fixture
def client(tmp_path: Path) -> Iterator[TestClient]:
    place = tmp_path / "workspace"
    (place / "cats").mkdir(parents=True)
    studio = Studio(Grounds.of(place, []), Door())
    with TestClient(create_app(studio), base_url="http://127.0.0.1", headers={"X-Darkroom": "1"}) as found:
        yield found


def test_the_form_is_kept_as_a_recipe_and_nothing_is_written_over(client: TestClient) -> None:
    values = client.get("/api/train/recipe", params={"name": "demo"}).json()["values"]
    values["train"]["length"] = "9 steps"
    kept = [client.post("/api/train/keep", json={"values": values, "name": "mine"}).json()["recipe"] for _ in range(2)]
    assert kept == ["recipes/mine.toml", "recipes/mine-2.toml"]
    assert client.get("/api/train/recipe", params={"name": kept[0]}).json()["values"]["train"]["length"] == "9 steps"
    for bad in ("../x", "a/b", ".x", "", "x" * 90):
        assert client.post("/api/train/keep", json={"values": values, "name": bad}).status_code == 403


COMMAND = (
    "accelerate launch train_dreambooth_lora_sdxl.py --pretrained_model_name_or_path=a/b --instance_data_dir={images} "
    "--instance_prompt='a photo of TOK cat' --rank=6"
)


def test_settings_of_other_programs_become_a_recipe(client: TestClient) -> None:
    found = client.post("/api/train/import", json={"text": COMMAND.format(images="cats")}).json()
    assert found["program"] == "train_dreambooth_lora_sdxl.py" and found["recipe"] == "recipes/imported.toml" and found["counts"]["mapped"] >= 4
    values = client.get("/api/train/recipe", params={"name": found["recipe"]}).json()["values"]
    assert (values["method"]["rank"], values["base"]) == (6, "a/b")
    kohya = {"network_module": "networks.lora", "network_dim": 12, "max_train_steps": 77, "learning_rate": 1e-4}
    found = client.post("/api/train/import", json={"text": json.dumps(kohya), "name": "theirs"}).json()
    assert client.get("/api/train/recipe", params={"name": found["recipe"]}).json()["values"]["method"]["rank"] == 12


def test_an_import_reads_no_file_outside(client: TestClient, tmp_path: Path) -> None:
    secret = tmp_path / "prompts.txt"
    secret.write_text("the neighbour's secret")
    kohya = {"network_module": "networks.lora", "network_dim": 4, "max_train_steps": 7, "learning_rate": 1e-4}
    for key, value in (
        ("sample_prompts", str(secret)),
        ("dataset_config", str(secret)),
        ("sample_prompts", "../prompts.txt"),
        ("train_data_dir", str(tmp_path)),
    ):
        answer = client.post("/api/train/import", json={"text": json.dumps(kohya | {key: value})})
        assert "neighbour" not in answer.text and answer.status_code == 200 and answer.json()["outside"] == [value]
    answer = client.post("/api/train/import", json={"text": COMMAND.format(images=tmp_path)})
    assert answer.status_code in (200, 400) and (answer.status_code == 400 or len(answer.json()["outside"]) == 1)
    for bad in ("{", "x = [", "", "import os", "train_x.py 'open"):
        assert client.post("/api/train/import", json={"text": bad}).status_code in (400, 403)
