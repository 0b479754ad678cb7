"""Does `darkroom pick` stop before a planted overfit copies? Ten trainings that must overfit, each judged on pictures that the choice never saw.

Two of the nine cats are learned at half again the demo's rate and for twice as long; four others are held out for `pick`; the last three are the judge's, who
draws other prompts with other noise. The copy score has turned at the first checkpoint at which it is significantly above its lowest before (and stays there).
Three such curves are told: the copy score; the copy score beyond that to the seven cats that were not learned from (a subject that is being learned comes
nearer to all nine, and that is no copying); and, without a test, where a line that is flat and then rises fits the copy score best.
The rule of `pick` was made on seeds 0 to 9 (docs/log.md): 10 to 19 are the test. Everything is kept in --out: a second call goes on, and a finished one only
prints the table.

    make overfit        (about an hour on two cores)
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from darkroom import pocket
from darkroom.evidence.pick import Pick, drawn_with, run_pick
from darkroom.files import write_json
from darkroom.jobs.generate import draw_files
from darkroom.jobs.score.items import Album
from darkroom.jobs.train import resume_training, run_training
from darkroom.metrics import METRICS, Given
from darkroom.metrics.eye import Eye
from darkroom.sampling.request import Request
from darkroom.statistics.plateau import Curve
from darkroom.train.recipe import load_recipe
from darkroom.train.run import Run
from darkroom.train.settle import Settled, measured, settled_at
from darkroom.values import seed_for

PROMPTS = (
    "{} on a red background", "{} on a blue background", "a picture of {}, green background", "{} on a white background",
    "a large {} on a purple background", "a small {} on a pink background",
)  # fmt: skip
FRESH = tuple(f"{start}{{}}{end}" for start in ("", "a picture of ", "an image of ", "a drawing of ", "one ", "the ", "a large ", "a small ")
              for end in ("", " on a teal background", " on an orange background"))  # fmt: skip
LEARNED, HELD = 2, 4  # of nine cats; the rest is the judge's
STEPS = 8  # denoising steps: blurred cats are cats
EVERY = 2  # the judge looks at every second checkpoint
TURNS = {"copying": "the copy score", "beyond": "the copy score beyond that to cats it never saw", "bend": "the bend of the copy score, untested"}


def main() -> None:
    """Run what is missing and print the table."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--out", type=Path, default=Path("overfit"))
    asked.add_argument("--first", type=int, default=10, help="The first ten seeds are those that the rule was made on.")
    asked.add_argument("--seeds", type=int, default=10)
    given, rows = asked.parse_args(), []
    for seed in range(given.first, given.first + given.seeds):
        rows.append(planted(given.out / f"seed-{seed:02d}", seed))
        print("  ".join(f"{key} {value}" for key, value in rows[-1].items()), flush=True)
        write_json(given.out / "overfit.json", {"rows": rows, "told": told(rows)})
    print("\n".join(told(rows)))


def planted(folder: Path, seed: int) -> dict[str, Any]:
    """One training, the choice, and the judge's curves."""
    cats = shared_out(folder, seed)
    settings = (
        "train.length=400 steps", "train.save_every=20 steps", "validation.every=20 steps", "preview.every=100000 steps", "preview.steps=1", "device=cpu",
        "method.rank=8", "data.batch_size=2", "optimizer.rate=1.5e-3", "optimizer.schedule=constant", f"train.seed={seed}",
        f"validation.pictures={cats['held']}",
    )  # fmt: skip
    recipe = load_recipe("demo", settings, data={"images": str(cats["train"]), "subject": "TOK cat"})
    place = folder / "run"
    if not (place / "recipe.toml").is_file():
        run = run_training(recipe, place)
    else:
        run = Run.open(place) if Run.open(place).finished else resume_training(place)
    found = run_pick(place, Pick(prompts=PROMPTS, seeds=2, seed=seed, steps=STEPS, checkpoints=100, drift=False), folder / "pick", "cpu")
    copying, beyond, likeness = judged(run, cats, folder / "fresh", seed)
    return {
        "seed": seed, "picked": found["step"], "copying": risen(copying), "beyond": risen(beyond), "bend": bend(copying),
        "settled": settled_at(measured(run.read_log()), Settled()), "steps": copying.steps, "copy scores": _means(copying), "beyond scores": _means(beyond),
        "likenesses": _means(likeness), "losses": [round(loss, 4) for _, loss in found["log"]],
    }  # fmt: skip


def risen(curve: Curve) -> int | None:
    """The first checkpoint significantly above the lowest one before it, and never as low again: paired t tests, Bonferroni over all pairs of checkpoints.

    The judge's own yardstick, not the one that `pick` goes by.
    """
    steps = curve.steps[1:]
    pairs = len(steps) * (len(steps) - 1) // 2
    for place in range(1, len(steps)):
        lowest = curve.best(steps[:place])
        stays = all(curve.worsening(lowest, step).mean > 0 for step in steps[place:])
        if stays and curve.worsening(lowest, steps[place]).p * pairs < 0.05:
            return steps[place]
    return None


def _means(curve: Curve) -> list[float]:
    return [round(float(value), 1) for value in curve.means]


def shared_out(folder: Path, seed: int) -> dict[str, Path]:
    """Nine cats to three folders, without captions: all are "a photo of TOK cat"."""
    every = sorted([*(pocket.CATS / "train").glob("*.png"), *(pocket.CATS / "held_out").glob("*.png")], key=lambda path: path.name)
    order = np.random.default_rng(seed_for(seed, "planted overfit")).permutation(len(every))
    places = {name: folder / name for name in ("train", "held", "judge")}
    for number, cat in enumerate(order):
        place = places["train" if number < LEARNED else "held" if number < LEARNED + HELD else "judge"]
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(every[cat], place)
    return places


def judged(run: Run, cats: dict[str, Path], out: Path, seed: int) -> tuple[Curve, Curve, Curve]:
    """Copying, copying beyond unseen cats, and likeness to the judge's cats, on prompts and noise that the choice never saw."""
    checkpoints = [None, *run.checkpoints()[EVERY - 1 :: EVERY]]
    steps = tuple(one.step if one else 0 for one in checkpoints)
    files = [[out / f"{step:06d}-{number:02d}.png" for number in range(len(FRESH))] for step in steps]
    requests = [Request(prompt=prompt.format("TOK cat"), seed=seed_for(seed, "fresh", prompt) % (1 << 32), steps=STEPS, **drawn_with(run.recipe, one))
                for one in checkpoints for prompt in FRESH]  # fmt: skip
    draw_files(zip(requests, (file for row in files for file in row), strict=True), "cpu", resume=True)
    unseen = Album([*_pictures(cats["held"]), *_pictures(cats["judge"])])
    eye = Eye.load(pocket.folder("scorer"))

    def curve(name: str, given: Given) -> Curve:
        metric = METRICS[name](given)
        return Curve(name, steps, np.array([metric(Album(row), list(FRESH)) for row in files]), metric.higher_is_better)

    copying, apart = (curve("copying", Given(training=pictures)) for pictures in (Album(_pictures(cats["train"])), unseen))
    likeness = curve("likeness", Given(eye, references=Album(_pictures(cats["judge"]))))
    return copying, replace(copying, values=copying.values - apart.values), likeness


def _pictures(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.png"))


def bend(curve: Curve) -> int:
    """The checkpoint at which a line that is flat before and rises after fits the means best (least squares); the base is left out."""
    steps, means = np.array(curve.steps[1:], float), curve.means[1:]

    def misfit(at: float) -> float:
        design = np.stack([np.ones_like(steps), np.maximum(0, steps - at)], 1)
        return float(((means - design @ np.linalg.lstsq(design, means, rcond=None)[0]) ** 2).sum())

    return int(min(steps[:-1], key=misfit))


def told(rows: list[dict[str, Any]]) -> list[str]:
    """In how many runs the choice came before each kind of turn; runs that never turned say nothing."""
    found = []
    for kind, words in TURNS.items():
        mine = [row for row in rows if row[kind]]
        before = sum(row["picked"] < row[kind] for row in mine)
        at = sum(row["picked"] == row[kind] for row in mine)
        found.append(
            f"{words}: picked before it turns in {before} of {len(mine)} runs, at the turn in {at}; {len(rows) - len(mine)} of {len(rows)} never turned"
        )
    return found


if __name__ == "__main__":
    main()
