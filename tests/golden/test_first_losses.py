"""A refactor must give equal losses: the first ones of every recipe on the cats, frozen. A change here is a change of what is learned."""

import pytest

from darkroom import pocket
from darkroom.jobs.train import prepare
from darkroom.train.loop import Trainer
from darkroom.train.recipe import RECIPES, load_recipe

LOSSES = {
    "demo": [0.0347193, 0.034998, 0.0557415],
    "dreambooth": [0.0368937, 0.0841337, 0.0605371],
    "cat-lora": [0.0204988, 0.0350016, 0.033692],
    "cat-lora-prior": [0.0492373, 0.0676041, 0.0771762],
    "inversion": [0.0370987, 0.081879, 0.0607074],
    "pivotal": [0.0370987, 0.0817315, 0.060356],
    "controlnet": [0.0342255, 0.0795434, 0.0583503],
    "full": [0.0368937, 0.0842863, 0.0608902],
    "dreambooth-full": [0.0060821, 0.0059777, 0.0650993],
    "refiner": [0.1569259, 0.1920014, 0.0897422],
    "negative": [0.0352685, 0.0823213, 0.0583041],
    "poster": [0.0064081, 0.0077452, 0.0796629],
    "quality": [0.0670336, 0.0884402, 0.0527069],
}
SMALL = ("device=cpu", "train.precision=fp32", "base=pocket", "data.prior.count=3", "data.prior.steps=2")
OWN = {
    # drawn pictures differ in their last bits from machine to machine, and with their bytes every draw that belongs to them
    "cat-lora-prior": (f"data.prior.pictures={pocket.CATS / 'held_out'}",),
    "poster": ("data.wording.prefix=TOK cat",),
    "refiner": ("base=pocket-refiner",),
    "quality": (f"validation.pictures={pocket.CATS / 'held_out'}",),
}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_first_losses(name, cats):
    recipe = load_recipe(name, (*SMALL, *OWN.get(name, ())), data={"images": str(cats), "subject": "TOK cat"})
    model, plan = prepare(recipe)
    attached = recipe.learner.attach(model, recipe.train.seed)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        found = [trainer.step(number)["loss"] for number in range(3)]
    finally:
        attached.detach()
    assert found == pytest.approx(LOSSES[name], rel=1e-3)  # other processors add in another order
