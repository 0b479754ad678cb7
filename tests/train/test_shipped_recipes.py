"""Recipes that answer to a document say what it says, value by value; and every recipe that ships can be prepared on the pocket model."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from darkroom import pocket
from darkroom.jobs.migrate import import_diffusers
from darkroom.jobs.train import prepare, run_training
from darkroom.spec import Tree, read_toml
from darkroom.train.recipe import RECIPES, Recipe, load_recipe

NAMES = sorted(path.stem for path in RECIPES.glob("*.toml"))
WANTS_PAIRS = ("controlnet", "refiner")
HERE = ("base=pocket", "device=cpu", "train.precision=fp32", f"validation.pictures={pocket.CATS / 'held_out'}")
ON_PURPOSE = {  # where the recipe says another thing than the command line, and why: the recipe's head says so too
    "base_config": "not said there",
    "data.images": "given with --images",
    "data.resolution": "0 is the base's own, which is the 1024 there",
    "data.bucket_step": "photos keep their shape; of squares it is the same",
    "data.crop": "of squares there is nothing to crop",
    "preview.prompts": "the caption, once",
    "preview.every": "of cat-lora-prior: there, nothing would be drawn before the end",
    "about": "",
}
RECIPE_OF = {"cat-lora": 0, "cat-lora-prior": 1}


@pytest.fixture(scope="module")
def commands(shared: Path) -> list[str]:
    """The tutorial's command lines, with the subject that its text gives in place of the shell's variables."""
    found = sorted((shared / "seeds").glob("003_*.txt"))
    if not found:
        pytest.skip("the cat tutorial is not here")
    blocks = re.findall(r"```python\n(.*?)```", found[0].read_text(encoding="utf-8", errors="replace"), re.DOTALL)
    told = {"$instance_prompt": "a photo of TOK cat", "$source_data_dir": "cats", "$class_dir": "any-cats", "$validation_prompt": "TOK cat"}
    lines = []
    for block in blocks:
        for name, value in told.items():
            block = block.replace(name, value)
        lines.append(block.strip())
    assert len(lines) == 2
    return lines


def said(recipe: Recipe | Tree, prefix: str = "") -> dict[str, Any]:
    """Every value by its path."""
    tree = recipe.model_dump(mode="json") if isinstance(recipe, Recipe) else recipe
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= said(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {prefix + key: value}
    return found


@pytest.mark.parametrize("name", NAMES)
def test_it_loads_and_comes_back_from_its_own_toml(name: str, tmp_path: Path) -> None:
    recipe = load_recipe(name)
    (tmp_path / "r.toml").write_text(recipe.to_toml(), encoding="utf-8")
    assert Recipe.from_tree(read_toml(tmp_path / "r.toml"), name) == recipe and recipe.about


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith(WANTS_PAIRS)])
def test_it_can_be_prepared_on_the_pocket_model(name: str, cats: Path) -> None:
    subject = load_recipe(name).data.subject or "TOK cat"
    recipe = load_recipe(name, HERE, data={"images": str(cats), "subject": subject})
    model, plan = prepare(recipe, draw=False)
    assert model.source == "pocket" and plan.steps == recipe.train.length.steps(plan.order.batches_per_epoch / recipe.train.accumulate)


@pytest.mark.parametrize("name", RECIPE_OF)
def test_the_cat_tutorials_command_lines(name: str, commands: list[str]) -> None:
    recipe, there = load_recipe(name), Recipe.from_tree(import_diffusers(commands[RECIPE_OF[name]]).recipe, "the tutorial")
    mine, theirs = said(recipe), said(there)
    assert mine["data.resolution"] == 0 and theirs["data.resolution"] == 1024
    other = {key for key in mine.keys() | theirs.keys() if mine.get(key) != theirs.get(key)}
    allowed = set(ON_PURPOSE) if name == "cat-lora-prior" else set(ON_PURPOSE) - {"preview.every"}
    assert {key for key in other if not key.startswith("data.prior.")} <= allowed


def test_the_cat_tutorials_prior_preservation(commands: list[str]) -> None:
    flags = dict(re.findall(r'--(\w+)="?([^"\s\\]+(?: [^"\\-][^"\\]*)?)"?', commands[1]))
    prior = load_recipe("cat-lora-prior").data.prior
    assert (prior.prompt, prior.count, prior.weight) == (flags["class_prompt"], int(flags["num_class_images"]), float(flags["prior_loss_weight"]))
    assert "--with_prior_preservation" in commands[1] and "--with_prior_preservation" not in commands[0]
    assert load_recipe("cat-lora").data.prior.prompt == ""


@pytest.mark.parametrize("name", RECIPE_OF)
def test_the_cat_tutorial_runs_on_the_pocket_model(name: str, cats: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    quick = (*HERE, "train.length=2 steps", "preview.steps=1", "data.prior.count=2", "data.prior.steps=1", "validation.draws=1")
    run = run_training(load_recipe(name, quick, data={"images": str(cats)}), tmp_path / "run")
    assert run.finished and run.facts["result"]["steps"] == 2


@pytest.fixture(scope="module")
def guide(shared: Path) -> str:
    """The poster guide's text."""
    found = sorted((shared / "seeds").glob("004_*.txt"))
    if not found:
        pytest.skip("the poster guide is not here")
    return " ".join(found[0].read_text(encoding="utf-8", errors="replace").split())


def test_the_poster_guides_parameters(guide: str) -> None:
    recipe, text = load_recipe("poster"), (RECIPES / "poster.toml").read_text(encoding="utf-8")
    listed = re.findall(r"• ([A-Za-z_ ]+): ", guide[guide.index("Description of some training parameters") : guide.rindex("Model evaluation")])
    assert len(listed) >= 11
    assert [name for name in listed if name not in text] == [], "a parameter of the guide that the recipe does not speak of"
    threshold = re.search(r"clip_threshold: .*?default value is ([\d.]+)", guide)
    most = re.search(r"iterations cannot exceed (\d+)k", guide)
    assert threshold and most
    assert said(recipe)["optimizer.clip_threshold"] == float(threshold[1].rstrip("."))
    assert recipe.train.length.amount == 1000 * int(most[1]) and recipe.train.length.unit == "steps"
    assert (recipe.method.kind, recipe.train.gradient_checkpointing, recipe.data.wording.shuffle) == ("full", True, True)
    assert recipe.train.precision in ("fp16", "bf16") and recipe.objective.noise_offset > 0 and recipe.data.wording.keep_tags > 0


def test_the_poster_recipe_runs_on_the_pocket_model(cats: Path, tmp_path: Path) -> None:
    quick = (*HERE, "train.length=2 steps", "preview.steps=1", "validation.draws=1", "method.single_file=false")
    run = run_training(load_recipe("poster", quick, data={"images": str(cats)}), tmp_path / "run")
    assert run.finished and (tmp_path / "run" / "model" / "unet").is_dir()


def test_the_negative_recipe_learns_one_word() -> None:
    recipe = load_recipe("negative")
    assert recipe.negative and recipe.trigger == "wrong" and recipe.template == "wrong"
    assert (recipe.method.kind, recipe.data.prior.prompt) == ("lora", "")
