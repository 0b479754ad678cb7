"""What a training writes into its adapter's header: what readers look for, true, without a clock, and with the recipe that made it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import pytest

from darkroom.data.dataset import read_folder
from darkroom.jobs.adapter import show_adapter
from darkroom.jobs.export import Export, export
from darkroom.jobs.label import pictures_told, public_recipe, write_sidecar
from darkroom.jobs.train import run_training
from darkroom.sdxl.adapters.header import Header
from darkroom.sdxl.adapters.metadata import read_sidecar
from darkroom.train.preflight import plan
from darkroom.train.recipe import Recipe, load_recipe

SETTINGS = (
    "train.length=3 steps", "train.save_every=2 steps", "preview.every=100 steps", "preview.steps=2", "device=cpu", "data.batch_size=4", "data.resolution=32",
)  # fmt: skip


def trained(cats: Path, out: Path, *settings: str) -> tuple[Path, dict[str, str]]:
    recipe = load_recipe("demo", (*SETTINGS, *settings), data={"images": str(cats), "subject": "TOK cat"})
    path = run_training(recipe, out, sidecar=0.7).folder / "adapter.safetensors"
    assert read_sidecar(path)["preferred weight"] == 0.7
    return path, Header.read(path).metadata


@pytest.fixture(scope="module")
def plain(cats: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    return trained(cats, tmp_path_factory.mktemp("plain") / "run", "method.rank=2", "method.alpha=1")


@pytest.fixture(scope="module")
def negative(cats: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    settings = ("negative=true", "method.text_encoders=true", "method.text_rate=0.5", "optimizer.rate=0.001", "train.accumulate=2", "method.rank=2")
    return trained(cats, tmp_path_factory.mktemp("negative") / "run", *settings)


def test_modelspec_has_what_it_must_and_what_it_should(plain: tuple[Path, dict[str, str]]) -> None:
    path, said = plain
    header = Header.read(path)
    body = hashlib.sha256(path.read_bytes()[header.start :]).hexdigest()
    assert {key: said[f"modelspec.{key}"] for key in ("sai_model_spec", "architecture", "title", "resolution", "trigger_phrase", "prediction_type")} == {
        "sai_model_spec": "1.0.1", "architecture": "stable-diffusion-xl-v1-base/lora", "title": "TOK cat", "resolution": "32x32", "trigger_phrase": "TOK cat",
        "prediction_type": "epsilon",
    }  # fmt: skip
    assert said["modelspec.implementation"].startswith("https://") and said["modelspec.description"]
    assert said["modelspec.hash_sha256"] == f"0x{body}" and said["sshs_model_hash"] == body and len(said["sshs_legacy_hash"]) == 8
    assert all(isinstance(value, str) for value in said.values()) and list(said) == sorted(said)


def test_kohyas_keys_are_those_of_the_training(plain: tuple[Path, dict[str, str]], cats: Path) -> None:
    said = {key.removeprefix("ss_"): value for key, value in plain[1].items() if key.startswith("ss_")}
    wanted = {
        "base_model_version": "sdxl_base_v1-0", "sd_model_name": "pocket", "output_name": "TOK", "network_module": "networks.lora", "network_dim": "2",
        "network_alpha": "1.0", "network_args": "{}", "resolution": "(32, 32)", "num_train_images": "6", "seed": "0", "steps": "3", "max_train_steps": "3",
        "total_batch_size": "4", "gradient_accumulation_steps": "1", "text_encoder_lr": "None", "network_train_unet_only": "True", "v2": "False",
        "mixed_precision": "no", "clip_skip": "None", "min_snr_gamma": "5.0", "noise_offset": "None",
    }  # fmt: skip
    assert {key: said[key] for key in wanted} == wanted and float(said["unet_lr"]) == float(said["learning_rate"]) > 0
    assert json.loads(said["dataset_dirs"]) == {"1_TOK cat": {"n_repeats": 1, "img_count": 6}}
    tags = json.loads(said["tag_frequency"])
    assert tags == {"1_TOK cat": {"a photo of tok cat": 6}}, "six pictures without captions of their own"
    buckets = json.loads(said["bucket_info"])
    assert sum(row["count"] for row in buckets["buckets"].values()) == 6 and 0 <= buckets["mean_img_ar_error"] < 1
    batches = sum(-(-row["count"] // 4) for row in buckets["buckets"].values())
    assert said["num_batches_per_epoch"] == str(batches) and said["epoch"] == said["num_epochs"] == str(-(-3 // batches))


def test_no_clock_and_no_place_is_told(plain: tuple[Path, dict[str, str]], cats: Path) -> None:
    """test_resume.py shows that equal trainings give equal bytes; this shows what that leaves out."""
    path, said = plain
    assert not {key for key in said if re.search(r"date$|_at$|session|host|time$", key)}
    told = json.dumps(said)
    assert not re.search(r"\b20[2-9]\d-\d\d-\d\d", told) and str(cats) not in told and str(path.parent) not in told and str(Path.home()) not in told
    assert not any(picture.name in told for picture in cats.iterdir())


def test_the_header_holds_the_recipe_and_the_receipt(plain: tuple[Path, dict[str, str]]) -> None:
    path, said = plain
    recipe = Recipe.from_tree(json.loads(said["darkroom.recipe"]), "header")
    assert recipe.method.rank == 2 and recipe.train.length == load_recipe("demo", SETTINGS).train.length and recipe.data.images == ""
    receipt, facts = json.loads(said["darkroom.receipt"]), json.loads((path.parent / "facts.json").read_text())
    for key in ("darkroom", "libraries", "seed", "base_sha256", "pictures_sha256", "precision"):
        assert receipt[key] == facts[key]
    assert receipt["pictures"] == 6 and receipt["preflight"]["steps"] == 3 and "hardware" not in receipt
    assert said["darkroom.receipt"] == json.dumps(receipt, sort_keys=True, separators=(",", ":"), ensure_ascii=False), "compact"


def test_a_negative_adapter_says_so_everywhere(negative: tuple[Path, dict[str, str]], tmp_path: Path) -> None:
    path, said = negative
    assert said["modelspec.is_negative_embedding"] == "true" and "negative prompt" in said["modelspec.usage_hint"]
    assert said["ss_text_encoder_lr"] == "0.0005" and said["ss_unet_lr"] == "0.001" and said["ss_network_train_unet_only"] == "False"
    assert said["ss_total_batch_size"] == "8"
    assert show_adapter(path)["negative"] and show_adapter(path)["warnings"] == []
    beside = json.loads(export(Export(path.parent, tmp_path / "out", weight=0.5)).with_suffix(".json").read_text())
    assert (beside["negative text"], beside["preferred weight"]) == ("TOK cat", 0.5) and not beside.get("activation text")
    card = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert "the word belongs into the negative prompt" in card and 'negative_prompt="a photo of TOK cat"' in card


def test_what_is_not_negative_does_not_say_so(plain: tuple[Path, dict[str, str]]) -> None:
    path, said = plain
    assert "modelspec.is_negative_embedding" not in said and not show_adapter(path)["negative"] and not Recipe().negative


def test_the_side_car_goes_beside_the_adapter(tmp_path: Path) -> None:
    recipe = load_recipe("demo", (), data={"images": "x", "subject": "TOK cat"})
    write_sidecar(tmp_path / "a.safetensors", recipe, 0.6, "note")
    assert read_sidecar(tmp_path / "a.safetensors") == {
        "description": recipe.about, "sd version": "SDXL", "activation text": "TOK cat", "preferred weight": 0.6, "notes": "note",
    }  # fmt: skip


def test_repeats_are_folders_as_kohya_calls_them(cats: Path, model: Any) -> None:
    recipe = load_recipe("demo", SETTINGS, data={"images": str(cats), "subject": "TOK cat"})
    photos = [dataclasses.replace(photo, repeats=1 + number % 2 * 2) for number, photo in enumerate(read_folder(cats, "TOK cat, on a sofa, Sofa"))]
    told = pictures_told(recipe, plan(recipe, photos, model))
    assert told["dataset_dirs"] == {"1_TOK cat": {"n_repeats": 1, "img_count": 3}, "3_TOK cat": {"n_repeats": 3, "img_count": 3}}
    assert told["tag_frequency"] == {folder: {"on a sofa": 3, "sofa": 3, "tok cat": 3} for folder in told["dataset_dirs"]}
    assert told["num_train_images"] == 12 == sum(row["count"] for row in told["bucket_info"]["buckets"].values())


def test_no_folder_of_this_machine_is_in_a_public_recipe() -> None:
    settings = ("validation.pictures=/home/me/held-out", "base=/home/me/base.safetensors", "base_config=/home/me/config")
    recipe = load_recipe("demo", settings, data={"images": "/home/me/cats", "subject": "TOK cat"})
    assert "/home/me" not in public_recipe(recipe, "base.safetensors").to_toml()
