"""A refactor must give equal losses: the first ones of every recipe on the cats, frozen. A change here is a change of what is learned."""

import pytest

from darkroom.jobs.train import prepare
from darkroom.train.loop import Trainer
from darkroom.train.recipe import RECIPES, load_recipe

LOSSES = {
    "demo": [0.0347193, 0.034998, 0.0557415],
    "dreambooth": [0.0368937, 0.0841337, 0.0605371],
}


@pytest.mark.parametrize("name", sorted(path.stem for path in RECIPES.glob("*.toml")))
def test_first_losses(name, cats):
    recipe = load_recipe(name, ("device=cpu", "train.precision=fp32"), data={"images": str(cats), "subject": "TOK cat"})
    model, plan = prepare(recipe)
    attached = recipe.method.attach(model, recipe.train.seed)
    try:
        trainer = Trainer(recipe, plan, model, attached)
        found = [trainer.step(number)["loss"] for number in range(3)]
    finally:
        attached.detach()
    assert found == pytest.approx(LOSSES[name], rel=1e-3)  # other processors add in another order
