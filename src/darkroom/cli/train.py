"""`darkroom train`, `darkroom resume` and `darkroom recipes`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from darkroom.cli.show import Json, Set, show

if TYPE_CHECKING:
    from darkroom.train.run import Run

Processes = Annotated[int, typer.Option(metavar="N", help="Train in so many processes of this machine, one to a GPU: the same result, sooner.")]


def train_command(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships with Darkroom (see `darkroom recipes`) or your own .toml file.")],
    images: Annotated[str | None, typer.Option(metavar="FOLDER", help="The folder of your pictures.")] = None,
    subject: Annotated[str | None, typer.Option(help='What they show, trigger word first: "TOK cat".')] = None,
    base: Annotated[str | None, typer.Option(help="pocket, a diffusers folder, a hub id or a .safetensors checkpoint.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder to make. Default: runs/RECIPE-TRIGGER-N.")] = None,
    settings: Set = None,
    sidecar: Annotated[float | None, typer.Option(metavar="WEIGHT", help="Also write A1111's side-car: activation text and this preferred weight.")] = None,
    stop_when_settled: Annotated[
        bool, typer.Option("--stop-when-settled", help="End once the held-out loss no longer falls, with the weights of where it last did.")
    ] = False,
    processes: Processes = 1,
    check: Annotated[bool, typer.Option("--check", help="Show the whole preflight and stop before the first step.")] = False,
    as_json: Json = False,
) -> None:
    """Train on your pictures: a recipe and a folder in, a run folder with adapter.safetensors out."""
    from darkroom.cli.watch import Terminal
    from darkroom.train.recipe import load_recipe

    data = {key: value for key, value in (("images", images), ("subject", subject)) if value is not None}
    loaded = load_recipe(recipe, tuple(settings or ()), data=data)
    if base is not None:
        loaded = loaded.model_copy(update={"base": base})
    if stop_when_settled:
        loaded = loaded.settling()
    from darkroom.jobs.runs import new_place
    from darkroom.jobs.stopping import at_once

    place = new_place(out, f"{Path(recipe).stem}-{''.join(c if c.isalnum() else '-' for c in loaded.trigger) or 'run'}")
    with at_once(place, processes):
        if processes != 1:
            from darkroom.jobs.processes import check_count, train_together

            check_count(processes, loaded)
            if not check:
                _show_run(train_together(loaded, place, processes, sidecar), as_json)
                return
        from darkroom.jobs.train import prepare, run_training
        from darkroom.train.launch import first

        with Terminal() as watcher:
            prepared = prepare(loaded, watcher, draw=not check, processes=processes if processes > 1 else 0)
            for line in preflight_lines(prepared[1].facts) if first() else ():
                watcher.say(line)
            if check:
                show({"preflight": prepared[1].facts}, ["Nothing was trained (--check). All of this would work."], as_json)
                return
            run = run_training(loaded, place, watcher, prepared, sidecar)
        _show_run(run, as_json)


def resume_command(run: Annotated[Path, typer.Argument(help="The run folder.")], processes: Processes = 1, as_json: Json = False) -> None:
    """Go on with a training that was stopped: the result is the same, byte for byte; with another number of processes but for rounding."""
    from darkroom.jobs.stopping import at_once

    with at_once(run, processes):
        if processes != 1:
            from darkroom.jobs.processes import resume_together

            _show_run(resume_together(run, processes), as_json)
            return
        from darkroom.cli.watch import Terminal
        from darkroom.jobs.train import resume_training

        with Terminal() as watcher:
            done = resume_training(run, watcher)
        _show_run(done, as_json)


def recipes_command(
    name: Annotated[str | None, typer.Argument(help="Print this one, to be copied and edited.")] = None,
    reference: Annotated[bool, typer.Option("--reference", help="Print the page of every key: type, default, meaning, source. As Markdown.")] = False,
    as_json: Json = False,
) -> None:
    """List the recipes that ship with Darkroom, print one, or print the reference of every key."""
    import tomllib

    if reference:
        from darkroom.jobs.reference import page, told

        show(told() if as_json else {}, [page().rstrip()], as_json)
        return
    from darkroom.train.recipe import RECIPES, recipe_text

    if name is not None:
        text = recipe_text(name)
        show({"name": name, "toml": text}, [text], as_json)
        return
    about = {path.stem: tomllib.loads(path.read_text(encoding="utf-8")).get("about", "") for path in sorted(RECIPES.glob("*.toml"))}
    show({"recipes": about}, [f"{key:<14} {value}" for key, value in about.items()], as_json)


def preflight_lines(facts: dict[str, Any]) -> list[str]:
    """What will happen, in words."""
    lines = ["captions, as the model sees them:"]
    groups: dict[tuple[str, int, bool], list[str]] = {}
    for row in facts["captions"]:
        groups.setdefault((row["caption"], row["tokens"], row["cut"]), []).append(row["file"])
    for (words, tokens, cut), named in list(groups.items())[:12]:
        files_text = named[0] if len(named) == 1 else f"{len(named)} pictures"
        lines.append(f'  {files_text}: "{words}" ({tokens} tokens{", CUT AFTER 75" if cut else ""})')
    lines += [f"  ... and {len(groups) - 12} more captions"] if len(groups) > 12 else []
    for row in facts["buckets"]:
        batches = ", ".join(str(size) for size in row["batches"][:8]) + (", ..." if len(row["batches"]) > 8 else "")
        lines.append(f"bucket {row['width']} x {row['height']}: {row['pictures']} pictures in batches of {batches}; the crop takes {row['cut_away']:.1%}")
    if facts["smaller_bucket"]:
        lines.append(
            f"{facts['smaller_bucket']} pictures are too small for the resolution and go to smaller buckets (data.enlarge = true enlarges them instead)"
        )
    if facts["masked"]:
        lines.append(f"{facts['masked']} pictures have a mask")
    if facts["held_out"]:
        lines.append(f"{facts['held_out']} pictures are held out: their loss is measured, they are not learned from")
    if prior := facts.get("prior"):
        missing = prior["wanted"] - prior["pictures"]
        lines.append(
            f'beside each picture one of {prior["wanted"]} of the class: "{prior["prompt"]}" ({prior["tokens"]} tokens), weight {prior["weight"]:g}'
            + (f"; {missing} of them are drawn first" if missing else "")
        )
    if facts["upscaled"]:
        lines.append(f"{facts['upscaled']} pictures are smaller than their bucket and are enlarged")
    lines.append(f"{facts['steps']} steps = {facts['epochs']:g} epochs, batch {facts['batch_size']} x {facts['accumulate']} accumulated")
    lines += [f"note: {remark}" for remark in facts["remarks"]]
    memory = facts["memory_mib"]
    parts = ", ".join(f"{name} {value:g}" for name, value in memory.items() if name != "total")
    lines.append(f"memory about {memory['total']:.0f} MiB ({parts}), beside the libraries' own")
    return lines


def _show_run(run: Run, as_json: bool) -> None:
    from darkroom.train.launch import first

    if not first():  # of several processes the others may not even see the folder
        return
    result = run.facts["result"]
    found = {"run": str(run.folder), "adapter": str(run.product), **result}
    told = [f"learned   {run.product}", f"previews  {run.folder / 'previews'}", f"curves    darkroom runs show {shlex.quote(str(run.folder))}"]
    show(found, [*told, f"{result['steps']} steps, {result['seconds_per_step']:.3f} s each"], as_json)
