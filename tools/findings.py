"""`make findings`: is the negative LoRA better? Two albums, a sweep, a placebo, a pilot, a plan, the trial, and docs/findings/negative-lora.md.

    python tools/findings.py                       on the pocket model, in about 20 minutes on two cores
    python tools/findings.py --world sdxl          the same on SDXL 1.0 (a GPU; hours), into docs/findings/negative-lora-sdxl.md
    python tools/findings.py --quick               every stage at its smallest, to see that it works: its figures say nothing

Each stage leaves a folder below --out, and a call that was stopped goes on there: what is drawn, trained and scored is not done again. Nothing that is chosen is
judged on the pictures it was chosen by: the sweep and the pilot have prompts and seeds of their own (darkroom/trials/negative-lora.toml).
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import findings_text
from darkroom.cli.watch import Terminal
from darkroom.data.manifest import Manifest
from darkroom.data.picture import read_picture
from darkroom.errors import DarkroomError, RunError
from darkroom.evidence.arms import Arm, Trial
from darkroom.evidence.planning import Ask, plan_trial, together
from darkroom.evidence.shipped import shipped_trial
from darkroom.evidence.trial import run_trial
from darkroom.files import write_json
from darkroom.jobs.train import resume_training, run_training
from darkroom.jobs.watch import Watcher
from darkroom.jobs.wrong import album_for, draw_album
from darkroom.sampling.request import Worn
from darkroom.train.recipe import Recipe, load_recipe
from darkroom.train.run import Run

NAME = "negative-lora"
PRIMARY = (("target", "empty"), ("target", "word"), ("target", "placebo"))
"""The comparisons that the trial's size is planned for: does it help, is it the adapter, is it what the adapter learned."""


@dataclass(frozen=True)
class Size:
    """How large everything is in one world."""

    rate: float
    ranks: tuple[int, ...]
    lengths: tuple[int, ...]
    """Steps; each rank is trained once, and its checkpoints are the shorter trainings (the rate is constant)."""
    album: dict[str, Any]
    drawing: int | None
    """Denoising steps of the trials; None: the world's."""
    tried: int
    """Prompts of sweep and pilot, with two seeds each."""
    most: int
    """Pictures of one arm in the trial, whatever the plan asks for."""


SIZES = {
    "pocket": Size(1e-3, (4, 16), (50, 100, 200, 400), {}, None, 12, 240),
    "sdxl": Size(1e-4, (4, 16), (250, 500, 1000), {}, None, 8, 96),
}
QUICK = Size(1e-3, (2,), (2, 4), {"per_word": 1, "steps": 2}, 2, 3, 6)


@dataclass(frozen=True)
class Work:
    """One call: where, in which world, how large."""

    out: Path
    world: str
    size: Size
    watcher: Watcher

    def trial(self, places: dict[str, str], pilot: bool = False, **changes: Any) -> Trial:
        """The shipped trial in this world."""
        tree = shipped_trial(NAME, self.world, places, pilot) | changes | ({"steps": self.size.drawing} if self.size.drawing else {})
        return Trial.from_tree(tree, NAME)


def findings(work: Work, docs: Path) -> dict[str, Any]:
    """All stages. Returns what the page was written from."""
    work.watcher.say("1 of 7  the albums: bad pictures, and good ones for the placebo")
    base = work.trial(dict.fromkeys(("negative", "placebo", "inversion"), "")).base
    albums = {name: draw_album(album_for(base, name == "good", **work.size.album), work.out / name, watcher=work.watcher) for name in ("bad", "good")}
    told = {name: scored(drawn.manifest, work) for name, drawn in albums.items()}
    work.watcher.say("2 of 7  the sweep: trainings of every rank")
    runs = {rank: trained(work, "bad", work.out / f"negative-{rank}", rank, max(work.size.lengths)) for rank in work.size.ranks}
    work.watcher.say("3 of 7  the sweep: which rank, how many steps")
    tried = sweep(work, runs)
    rank, length = tried["rank"], tried["steps"]
    work.watcher.say(f"        rank {rank}, {length} steps. 4 of 7  the placebo, and the textual inversion")
    placebo = trained(work, "good", work.out / f"placebo-{rank}-{length}", rank, length)
    inversion = inverted(work, length)
    places = {"negative": f"{runs[rank].folder}@{length}", "placebo": str(placebo.product), "inversion": str(inversion.product)}
    work.watcher.say("5 of 7  the pilot, in all arms")
    pilot = work.trial(places, pilot=True, seeds=[201, 202], batch=2)
    pilot = pilot.model_copy(update={"prompts": pilot.prompts[: work.size.tried]})
    run_trial(pilot, work.out / "pilot", watcher=work.watcher)
    work.watcher.say("6 of 7  the plan")
    plan, design = planned(work, work.trial(places), work.out / "pilot")
    work.watcher.say(f"        {design['prompts']} prompts x {design['seeds']} seeds. 7 of 7  the trial")
    trial = sized(work.trial(places, batch=min(4, design["seeds"])), design)
    result = run_trial(trial, work.out / "trial", watcher=work.watcher)
    found = {"world": work.world, "albums": told, "sweep": tried, "plan": plan, "design": design, "trial": result, "inversion": inversion.recipe.train.seed}
    findings_text.write(found, {name: drawn.manifest for name, drawn in albums.items()}, work.out, docs, page_name(work.world))
    return found


def page_name(world: str) -> str:
    """The page's file without its ending; the pocket's is the one that others are named after."""
    return NAME if world == "pocket" else f"{NAME}-{world}"


def scored(manifest: Manifest, work: Work) -> dict[str, float]:
    """Mean scores of an album, so that nobody has to believe that bad pictures are bad. clip is asked for the scene, where there is one."""
    from darkroom.device import pick_device
    from darkroom.metrics import METRICS, Given
    from darkroom.metrics.eye import Eye

    trial = work.trial(dict.fromkeys(("negative", "placebo", "inversion"), ""))
    given = Given(Eye.load(trial.eye, pick_device("auto")))
    rows = manifest.rows
    pictures, scenes = [read_picture(manifest.path(row)) for row in rows], [row.extra.get("scene", "") for row in rows]
    names = [name for name in trial.metrics if name != "clip" or all(scenes)]
    return {name: statistics.mean(METRICS[name](given)(pictures, scenes)) for name in names} | {"pictures": len(rows)}


def recipe_for(work: Work, name: str, pictures: str, length: int, *settings: str) -> Recipe:
    """A shipped recipe, learned from an album."""
    base = work.trial(dict.fromkeys(("negative", "placebo", "inversion"), "")).base
    common = (f"base={base}", f"train.length={length} steps", "train.save_every=10000 steps", "preview.every=100000 steps", "preview.steps=10")
    return load_recipe(name, (*common, *settings), data={"images": str(work.out / pictures), "subject": "wrong", "caption": "{subject}"})


def trained(work: Work, pictures: str, folder: Path, rank: int, length: int) -> Run:
    """The negative recipe on an album, or what is there of it. Checkpoints at every length of the sweep: a divisor of them all."""
    from math import gcd

    each = gcd(*(steps for steps in work.size.lengths if steps <= length))
    settings = (f"method.rank={rank}", f"method.alpha={float(rank)}", f"optimizer.rate={work.size.rate}", f"train.save_every={each} steps")
    return learned(recipe_for(work, "negative", pictures, length, *settings), folder, work.watcher)


def inverted(work: Work, length: int) -> Run:
    """Textual inversion of the same album, in as many steps, with the recipe's own rate; its word is the adapter's."""
    recipe = recipe_for(work, "inversion", "bad", length, "negative=true", f"method.start={'blurry' if work.world == 'pocket' else 'bad'}")
    return learned(recipe, work.out / f"inversion-{length}", work.watcher)


def learned(recipe: Recipe, folder: Path, watcher: Watcher) -> Run:
    """Train, go on, or take what is finished. Raises RunError for a run of other settings."""
    if not folder.exists():
        return run_training(recipe, folder, watcher)
    run = Run.open(folder)
    if run.recipe != recipe:
        raise RunError(f"{folder}: was trained with other settings than this call's. Take it away, or name another folder with --out.")
    return run if run.finished else resume_training(folder, watcher)


def sweep(work: Work, runs: dict[int, Run]) -> dict[str, Any]:
    """Every rank and length with the word, against the word alone, on prompts and seeds that are not judged upon.

    The one is taken whose gain is largest, each metric counted in its own spread over the pictures; of equal ones the smaller.
    """
    settings = [(rank, length) for rank in runs for length in work.size.lengths]
    names = {f"rank {rank}, {length} steps": (rank, length) for rank, length in settings}
    shipped = work.trial(dict.fromkeys(("negative", "placebo", "inversion"), ""), pilot=True, seeds=[101, 102], batch=2)
    arms = [Arm(name="word", negative="wrong")]
    arms += [Arm(name=name, negative="wrong", adapters=(Worn(file=f"{runs[rank].folder}@{length}"),)) for name, (rank, length) in names.items()]
    changes = {"title": "Rank and steps", "about": "", "arms": tuple(arms), "comparisons": (), "prompts": shipped.prompts[: work.size.tried]}
    result = run_trial(shipped.model_copy(update=changes), work.out / "sweep", watcher=work.watcher)
    rows = [{"name": name, "rank": rank, "steps": length, **gain(result, name)} for name, (rank, length) in names.items()]
    best = max(rows, key=lambda row: (round(row["gain"], 6), -row["steps"], -row["rank"]))
    tried = {"rank": best["rank"], "steps": best["steps"], "rows": rows, "prompts": len(result["prompts"]), "seeds": len(result["seeds"])}
    write_json(work.out / "sweep.json", tried)
    return tried


def gain(result: dict[str, Any], arm: str) -> dict[str, float]:
    """Mean difference from the first arm by metric, and over the metrics in units of the first arm's spread."""
    found, shares = {}, []
    for metric in (one["name"] for one in result["metrics"]):
        mine, first = ([row["scores"][metric] for row in result["pictures"] if row["arm"] == name] for name in (arm, result["baseline"]))
        found[metric] = statistics.mean(mine) - statistics.mean(first)
        shares.append(found[metric] / (statistics.pstdev(first) or 1.0))
    return found | {"gain": statistics.mean(shares)}


def planned(work: Work, trial: Trial, pilot: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The plan for the margins, and the design that is drawn: the fewest pictures that see them in the primary comparisons, or as many as may be drawn."""
    plan = plan_trial(trial, work.out, Ask({}, pilot=pilot), watcher=work.watcher)
    wanted = [one for one in plan["plans"] if (one["arm"], one["against"]) in PRIMARY]
    designs = [one for one in together(wanted, len(trial.arms), plan["seconds_per_picture"]) if one["seeds"] > 1 and all(p.get("designs") for p in wanted)]
    able = [one for one in designs if one["prompts"] <= len(trial.prompts) and one["prompts"] * one["seeds"] <= work.size.most]
    if able:
        design = min(able, key=lambda one: (one["pictures"], one["seeds"])) | {"enough": True}
    else:
        prompts = min(len(trial.prompts), work.size.most // 2)
        design = {"prompts": prompts, "seeds": max(2, work.size.most // prompts), "enough": False}
    asked = min(designs, key=lambda one: one["pictures"], default=None)
    write_json(work.out / "plan.json", {"plan": plan, "design": design, "asked": asked})
    return plan | {"asked": asked}, design


def sized(trial: Trial, design: dict[str, Any]) -> Trial:
    """The trial with its first prompts, and seeds counted from 1."""
    return trial.model_copy(update={"prompts": trial.prompts[: max(2, design["prompts"])], "seeds": tuple(range(1, design["seeds"] + 1))})


def main(arguments: Sequence[str]) -> int:
    """The command. Returns the exit code."""
    reader = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    reader.add_argument("--out", type=Path, default=None, help="where albums, runs and trials go; a stopped call goes on there (default: runs/findings-WORLD)")
    reader.add_argument("--docs", type=Path, default=Path("docs/findings"), help="where the page goes")
    reader.add_argument("--world", choices=sorted(SIZES), default="pocket")
    reader.add_argument("--quick", action="store_true", help="every stage at its smallest: proves the way, and shows nothing")
    given = reader.parse_args(arguments)
    size = replace(QUICK, rate=SIZES[given.world].rate) if given.quick else SIZES[given.world]
    out = given.out or Path("runs") / f"findings-{given.world}{'-quick' if given.quick else ''}"
    try:
        with Terminal() as watcher:
            found = findings(Work(out, given.world, size, watcher), out if given.quick else given.docs)
    except (DarkroomError, KeyboardInterrupt) as error:
        print(f"findings: {error or 'Stopped.'}", file=sys.stderr)
        return 130 if isinstance(error, KeyboardInterrupt) else 2
    print(f"report  {(out / 'trial' / 'report.html').resolve()}")
    print(f"page    {((out if given.quick else given.docs) / page_name(given.world)).resolve()}.md")
    return 0 if not found["trial"]["faults"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
