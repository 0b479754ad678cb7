"""Two processes of half the batch learn what one learns (gloo, CPU)."""

import os
import subprocess
import sys

from safetensors.torch import load_file

from darkroom.jobs.processes import free_port
from darkroom.jobs.train import run_training
from darkroom.train.crew import Crew

WORK = """
import sys
from pathlib import Path
from darkroom.jobs.train import run_training
from darkroom.spec import read_toml
from darkroom.train.recipe import Recipe
run_training(Recipe.from_tree(read_toml(Path(sys.argv[1])), "test"), Path(sys.argv[2]))
"""


def test_shares_make_the_whole():
    rows = list(range(7))
    assert sorted(row for rank in range(3) for row in Crew(rank, 3).share(rows)) == rows
    assert list(Crew(2, 3).share([1])) == []
    assert Crew.join() == Crew()


def test_two_processes_learn_what_one_learns(quick, cats, tmp_path):
    """20 steps of batches of 4 and 2 pictures with accumulation and prior preservation; weights equal to 1e-6."""
    tree = quick.model_dump(mode="json")
    tree["train"] |= {"length": "20 steps", "save_every": "20 steps", "accumulate": 2, "save_dtype": "fp32"}
    tree["optimizer"]["rate"] = 1e-4  # SDXL's; Adam makes steps of the rate's size of a gradient's last bits too, so that 1e-3 is ten times as far apart
    tree["data"] |= {"batch_size": 4, "resolution": 32, "prior": {"prompt": "a photo of a cat", "pictures": str(cats), "count": 6}}
    recipe = type(quick).from_tree(tree, "test")
    (tmp_path / "recipe.toml").write_text(recipe.to_toml())
    told = {**os.environ, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "ACCELERATE_USE_CPU": "true", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", WORK, str(tmp_path / "recipe.toml"), str(tmp_path / "two")]
    with free_port() as port:
        told |= {"MASTER_PORT": str(port)}
        crew = [subprocess.Popen(command, env={**told, "RANK": str(rank), "LOCAL_RANK": str(rank)}, stderr=subprocess.PIPE) for rank in range(2)]
        errors = [process.communicate(timeout=300)[1].decode() for process in crew]
    assert [process.returncode for process in crew] == [0, 0], errors
    one = run_training(recipe, tmp_path / "one")
    alone, together = load_file(one.product), load_file(tmp_path / "two" / "adapter.safetensors")
    assert alone.keys() == together.keys()
    assert max(float((alone[name] - together[name]).abs().max()) for name in alone) < 1e-6
    assert max(float(tensor.abs().max()) for name, tensor in alone.items() if "lora_up" in name) > 1e-4, "it learned"
