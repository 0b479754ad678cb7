"""How it learns: the recipe, the objective, the caches, the loop and the run folder."""
