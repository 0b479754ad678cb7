"""What lies in a workspace, and what was made of a run: by names, headers and hashes, and nothing by opening weights."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from darkroom.jobs.inventory import read_adapter, take_stock
from darkroom.jobs.lineage import came_of, made_from, receipt_of
from darkroom.jobs.runs import list_runs
from darkroom.train.recipe import load_recipe
from darkroom.train.run import Run


def adapter(path: Path, **said: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({"lora_unet_x.lora_down.weight": np.zeros((2, 2), np.float32)}, path, said or None)
    return path


@pytest.fixture
def workspace(tmp_path: Path) -> Path:
    (tmp_path / "cats").mkdir()
    for name in ("a.png", "b.JPG", "a.txt"):
        (tmp_path / "cats" / name).write_bytes(b"")
    recipe = load_recipe("demo", data={"images": "cats", "subject": "TOK cat"})
    facts = {
        "pictures": [{}, {}],
        "pictures_sha256": "p" * 64,
        "base_sha256": "b" * 64,
        "preflight": {"pictures": 2, "steps": 9},
        "result": {"steps": 9, "adapter_sha256": "c" * 64},
    }
    run = Run.create(tmp_path / "runs" / "one", recipe, facts)
    adapter(run.product, **{"ss_sd_model_name": "pocket", "modelspec.trigger_phrase": "TOK cat", "ss_network_dim": "8"})
    adapter(tmp_path / "runs" / "one" / "steps" / "000009" / "adapter.safetensors")
    made = json.dumps({"adapters": [{"file": "adapter.safetensors", "sha256": "c" * 64, "weight": 1.0}, {"file": "other.safetensors", "sha256": "d" * 64}]})
    adapter(tmp_path / "adapters" / "both.safetensors", **{"darkroom.merge": made})
    for name, sha in (("mine", "c"), ("theirs", "e")):
        place = tmp_path / "exports" / name
        place.mkdir(parents=True)
        (place / "facts.json").write_text(json.dumps({"adapter_sha256": sha * 64, "adapter_step": 9}))
        (place / "recipe.toml").write_text(recipe.to_toml())
        (place / "README.md").write_text("card")
        trial = tmp_path / "trials" / name
        (trial / "pictures").mkdir(parents=True)
        (trial / "pictures" / "x.png").write_bytes(b"")
        (trial / "trial.json").write_text(json.dumps({"title": name, "receipt": {"adapters": {"x": sha * 64}}, "comparisons": [{"sentence": "It helps."}]}))
    return tmp_path


def test_what_lies_in_a_workspace(workspace: Path) -> None:
    (workspace / "sdxl" / "unet").mkdir(parents=True)
    (workspace / "sdxl" / "model_index.json").write_text("{}")
    adapter(workspace / "sdxl" / "unet" / "part.safetensors")
    save_file({"model.diffusion_model.x": np.zeros(1, np.float32)}, workspace / "whole.safetensors")
    (workspace / ".hidden").mkdir()
    adapter(workspace / ".hidden" / "x.safetensors")
    stock = take_stock(workspace)
    assert [(path.name, count) for path, count in stock.pictures] == [("cats", 2)]
    assert [path.name for path in stock.models] == ["whole.safetensors", "sdxl"]
    assert [one.path.relative_to(workspace).as_posix() for one in stock.adapters] == ["adapters/both.safetensors", "runs/one/adapter.safetensors"]
    assert stock.whole and len(stock.trials) == len(stock.exports) == 2


def test_a_header_says_what_it_is_and_a_damaged_file_that_it_is_damaged(workspace: Path) -> None:
    found = read_adapter(workspace / "runs" / "one" / "adapter.safetensors")
    assert found and (found.words, found.base, found.rank, found.damaged) == ("TOK cat", "pocket", "8", "")
    for number, content in enumerate((b"", b"PK\x03\x04", b"\xff" * 40, (8).to_bytes(8, "little") + b"[1,2,3]]", (2).to_bytes(8, "little") + b"{}more")):
        path = workspace / f"{number}.safetensors"
        path.write_bytes(content)
        found = read_adapter(path)
        assert found and found.damaged, content
    assert read_adapter(workspace / "missing.safetensors") is None


def test_before_and_after_a_run(workspace: Path) -> None:
    run = workspace / "runs" / "one"
    assert [(link.kind, link.name, link.path) for link in made_from(run, workspace)] == [("pictures", "cats", workspace / "cats"), ("base", "pocket", None)]
    assert [(link.kind, link.name) for link in came_of(run, take_stock(workspace))] == [
        ("adapter", "adapter.safetensors"), ("export", "mine"), ("merged", "both.safetensors"), ("trial", "mine"),
    ]  # fmt: skip
    assert receipt_of(run)["pictures"] == 2 and receipt_of(workspace) == {}


def test_an_export_is_no_run(workspace: Path) -> None:
    assert [run.name for run in list_runs(workspace)] == ["runs/one"]
