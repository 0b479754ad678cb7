"""A training in a process of its own, killed -9 again and again at moments of no order, and gone on with each time."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from pathlib import Path

from darkroom.train.recipe import Recipe
from darkroom.train.run import Run
from darkroom.values import seed_for

COMMAND = """
import sys
from pathlib import Path
from darkroom.jobs.train import resume_training, run_training
from darkroom.spec import read_toml
from darkroom.train.recipe import Recipe

recipe, out = Recipe.from_tree(read_toml(Path(sys.argv[1])), "recipe"), Path(sys.argv[2])
resume_training(out) if (out / "recipe.toml").is_file() else run_training(recipe, out)
"""


def digest(run: Path) -> str:
    """Of all that a run has learned."""
    product = Run.open(run).product
    files = sorted(path for path in product.rglob("*") if path.is_file()) if product.is_dir() else [product]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def started(recipe: Path, out: Path) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", COMMAND, str(recipe), str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, env=os.environ)


def killed(recipe: Recipe, folder: Path, kills: int, within: float = 3.0) -> dict[str, object]:
    """Train to the end with so many kills. Each comes up to `within` seconds after a moment that is drawn: the start of the process, the first step of its
    sitting, or a checkpoint that is half written. Returns where the run stood at each kill, and at which moment."""
    source, out = folder / "recipe.toml", folder / "killed"
    source.write_text(recipe.to_toml(), encoding="utf-8")
    stood: list[tuple[str, int]] = []
    for kill in range(kills):
        process = started(source, out)
        moment = ("step", "checkpoint", "step", "start")[seed_for(0, "moment", kill) % 4]
        if not _came(process, out, moment):
            break
        if moment != "checkpoint":
            time.sleep(seed_for(0, "kill", kill) % 1000 / 1000 * within)
        process.kill()
        process.wait()
        stood.append((moment, _steps(out)))
    process = started(source, out)
    errors = process.communicate()[1].decode()
    assert process.returncode == 0, errors
    return {"kills": len(stood), "stood": stood}


def _came(process: subprocess.Popen[bytes], out: Path, moment: str) -> bool:
    """Wait for the moment; False where the training came to its end before."""
    before, deadline = _rows(out), time.monotonic() + 300
    while process.poll() is None and time.monotonic() < deadline:
        match moment:
            case "start":
                return True
            case "step" if _rows(out) != before:
                return True
            case "checkpoint" if any((out / "steps").glob(".*.part")):
                return True
        time.sleep(0.001)  # a checkpoint is half written for some 10 ms
    assert process.returncode == 0, process.communicate()[1].decode()
    return False


def _rows(out: Path) -> bytes:
    log = out / "log.jsonl"
    return log.read_bytes()[-200:] if log.is_file() else b""


def _steps(out: Path) -> int:
    saved = sorted((out / "steps").glob("[0-9]*"))
    return int(saved[-1].name) if saved else 0
