"""`darkroom`: collect, screen, caption, dataset; train, resume, recipes; generate, grid, prompt; trial, demo; adapter, base, import, export.

Exit codes: 0 done; 2 the user's mistake, with one message and no traceback; 1 a fault of ours; 130 stopped with Ctrl-C.
With --json, standard output holds one JSON object and nothing else. torch is imported by the jobs, never here.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer

from darkroom import __version__
from darkroom.cli import adapter, base, caption, collect, dataset, draw, files, screen
from darkroom.cli.show import Device, Json, Set, show
from darkroom.errors import DarkroomError

app = typer.Typer(
    name="darkroom", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Fine-tune Stable Diffusion XL on your own pictures, and see with evidence whether it got better.",
)  # fmt: skip

app.command("collect")(collect.collect_command)
app.command("screen")(screen.screen_command)
app.command("caption")(caption.caption_command)
app.add_typer(dataset.app)
app.command("generate")(draw.generate_command)
app.command("grid")(draw.grid_command)
app.command("prompt")(draw.prompt_command)
app.add_typer(adapter.app)
app.add_typer(base.app)
imports = typer.Typer(name="import", no_args_is_help=True, rich_markup_mode=None, help="Settings of other programs as recipes: kohya's and diffusers'.")
imports.command("kohya")(files.import_kohya_command)
imports.command("diffusers")(files.import_diffusers_command)
app.add_typer(imports)
app.command("export")(files.export_command)


@app.callback(invoke_without_command=True)
def root(version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False) -> None:
    if version:
        print(f"darkroom {__version__}")
        raise typer.Exit


@app.command("train")
def train_command(
    recipe: Annotated[str, typer.Argument(help="A recipe that ships with Darkroom (see `darkroom recipes`) or your own .toml file.")],
    images: Annotated[str | None, typer.Option(metavar="FOLDER", help="The folder of your pictures.")] = None,
    subject: Annotated[str | None, typer.Option(help='What they show, trigger word first: "TOK cat".')] = None,
    base: Annotated[str | None, typer.Option(help="pocket, a diffusers folder, a hub id or a .safetensors checkpoint.")] = None,
    out: Annotated[Path | None, typer.Option(metavar="RUN", help="The run folder to make. Default: runs/RECIPE-TRIGGER-N.")] = None,
    settings: Set = None,
    sidecar: Annotated[float | None, typer.Option(metavar="WEIGHT", help="Also write A1111's side-car: activation text and this preferred weight.")] = None,
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
    from darkroom.jobs.train import prepare, run_training

    with Terminal() as watcher:
        prepared = prepare(loaded)
        for line in preflight_lines(prepared[1].facts):
            watcher.say(line)
        if check:
            show({"preflight": prepared[1].facts}, ["Nothing was trained (--check). All of this would work."], as_json)
            return
        run = run_training(loaded, out or _next_run(recipe, loaded.trigger), watcher, prepared, sidecar)
    _show_run(run, as_json)


@app.command("resume")
def resume_command(run: Annotated[Path, typer.Argument(help="The run folder.")], as_json: Json = False) -> None:
    """Go on with a training that was stopped: the result is the same, byte for byte."""
    from darkroom.cli.watch import Terminal
    from darkroom.jobs.train import resume_training

    with Terminal() as watcher:
        done = resume_training(run, watcher)
    _show_run(done, as_json)


@app.command("trial")
def trial_command(
    file: Annotated[Path | None, typer.Argument(metavar="TRIAL.toml", help="A trial of your own; or give --adapter and --prompt.")] = None,
    adapter: Annotated[list[str] | None, typer.Option(metavar="FILE[:WEIGHT]", help="Compared with the base; each one is an arm.")] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="May be given several times; at least two.")] = None,
    prompts: Annotated[Path | None, typer.Option(metavar="FILE", help="A text file with one prompt a line.")] = None,
    seeds: Annotated[int, typer.Option(help="Pictures of each prompt and arm.")] = 4,
    reference: Annotated[str, typer.Option(metavar="FOLDER", help="Held-out pictures of the subject, for likeness.")] = "",
    base: Annotated[str, typer.Option(help="pocket, a diffusers folder, a hub id or a .safetensors checkpoint.")] = "pocket",
    scorer: Annotated[str, typer.Option(help="A CLIP folder or hub id. Default: pocket's own, or ViT-L/14 from the hub.")] = "",
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where pictures and report go; a stopped trial goes on there.")] = Path("trial"),
    device: Device = "auto",
    settings: Set = None,
    as_json: Json = False,
) -> None:
    """Is it better? The same prompts, seeds and noise through two or more arms, scored, compared, and shown in report.html."""
    from darkroom.cli.watch import Terminal
    from darkroom.errors import RecipeError
    from darkroom.evidence.trial import Trial, run_trial
    from darkroom.jobs.generate import parse_adapter
    from darkroom.spec import override, read_toml

    if file is not None:
        tree = read_toml(file)
    elif adapter:
        lines = prompts.read_text(encoding="utf-8").splitlines() if prompts else []
        arms: list[dict[str, Any]] = [{"name": "base"}]
        for text in adapter:
            worn = parse_adapter(text)
            arms.append({"name": f"{Path(worn.file).stem} {worn.weight:g}", "adapters": [worn.model_dump()]})
        metrics = ["likeness", "clip", "aesthetic"] if reference else ["clip", "aesthetic"]
        tree = {
            "title": "Is it better than the base?", "base": base, "arms": arms, "prompts": [*(prompt or ()), *(line for line in lines if line.strip())],
            "seeds": list(range(1, seeds + 1)), "reference": reference, "scorer": scorer, "metrics": metrics,
        }  # fmt: skip
    else:
        raise RecipeError("trial needs a TRIAL.toml, or --adapter FILE and some --prompt.")
    trial = Trial.from_tree(override(tree, settings or ()), str(file or "trial"))
    with Terminal() as watcher:
        result = run_trial(trial, out, device, watcher=watcher)
    _show_trial(result, out / "report.html", as_json)


@app.command("demo")
def demo_command(
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where everything goes.")] = Path("darkroom-demo"),
    as_json: Json = False,
) -> None:
    """The whole way on bundled pictures: nine cats, an adapter, a trial, report.html."""
    from darkroom.cli.watch import Terminal
    from darkroom.evidence.demo import demo

    with Terminal() as watcher:
        result = demo(out, watcher)
    _show_trial(result, Path(result["report"]), as_json)


@app.command("recipes")
def recipes_command(
    name: Annotated[str | None, typer.Argument(help="Print this one, to be copied and edited.")] = None, as_json: Json = False
) -> None:  # fmt: skip
    """List the recipes that ship with Darkroom, or print one."""
    import tomllib

    from darkroom.train.recipe import RECIPES, find_recipe

    if name is not None:
        text = find_recipe(name).read_text(encoding="utf-8")
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
    if facts["upscaled"]:
        lines.append(f"{facts['upscaled']} pictures are smaller than their bucket and are enlarged")
    lines.append(f"{facts['steps']} steps = {facts['epochs']:g} epochs, batch {facts['batch_size']} x {facts['accumulate']} accumulated")
    lines += [f"note: {remark}" for remark in facts["remarks"]]
    memory = facts["memory_mib"]
    parts = ", ".join(f"{name} {value:g}" for name, value in memory.items() if name != "total")
    lines.append(f"memory about {memory['total']:.0f} MiB ({parts}), beside the libraries' own")
    return lines


def _show_run(run: Any, as_json: bool) -> None:
    result = run.facts["result"]
    adapter = run.folder / "adapter.safetensors"
    found = {"run": str(run.folder), "adapter": str(adapter), **result}
    show(found, [f"adapter   {adapter}", f"previews  {run.folder / 'previews'}", f"{result['steps']} steps, {result['seconds_per_step']:.3f} s each"], as_json)


def _show_trial(result: dict[str, Any], report: Path, as_json: bool) -> None:
    verdicts = [row["sentence"] for row in result["comparisons"]]
    kept = {key: value for key, value in result.items() if key in ("comparisons", "run", "seconds", "arms", "title")}
    seconds = [f"{result['seconds']:.0f} seconds in all"] if "seconds" in result else []
    show(kept | {"report": str(report)}, [*verdicts, *seconds, f"report  {report.resolve()}"], as_json)


def _next_run(recipe: str, trigger: str) -> Path:
    stem = f"{Path(recipe).stem}-{''.join(c if c.isalnum() else '-' for c in trigger) or 'run'}"
    number = 1
    while (path := Path("runs") / f"{stem}-{number:03d}").exists():
        number += 1
    return path


def main() -> None:
    """The command `darkroom`."""
    code = run(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    if "torch" in sys.modules:  # taking its modules apart costs 1.1 s, of which nobody has anything
        atexit._run_exitfuncs()
        os._exit(code)
    sys.exit(code)


def run(arguments: list[str]) -> int:
    """Run a command line; returns the exit code."""
    as_json = "--json" in arguments
    try:
        result = app(arguments, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except DarkroomError as error:
        _complain(str(error), type(error).__name__, as_json)
        return 2
    except KeyboardInterrupt as stopped:
        _complain(str(stopped) or "Stopped.", "Stopped", as_json)
        return 130
    except Exception as error:
        if hasattr(error, "show") and hasattr(error, "exit_code"):  # a usage error of typer's: it knows how to say it
            if as_json:
                _complain(getattr(error, "message", str(error)), "UsageError", as_json)
            else:
                error.show()
            return int(error.exit_code)
        if type(error).__name__ == "Abort":
            return 130
        traceback.print_exc()
        _complain(f"This is a fault of Darkroom, not yours: {type(error).__name__}: {error}. Please report it with the lines above.", "Fault", as_json)
        return 1


def _complain(message: str, kind: str, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"error": message, "kind": kind}, ensure_ascii=False))
    else:
        print(f"darkroom: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
