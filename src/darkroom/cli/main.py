"""`darkroom`: collect, screen, caption, dataset; train, resume, recipes, runs; generate, grid, prompt; trial, demo, score, pick, tune-weights, rate, wrong;
studio; adapter, base, import, export.

Exit codes: 0 done; 2 the user's mistake, with one message and no traceback; 1 a fault of ours; 130 stopped with Ctrl-C.
With --json, standard output holds one JSON object and nothing else. torch is imported by the jobs, never here.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
import traceback
from typing import Annotated, Any

import typer
import typer.core

from darkroom import __version__
from darkroom.cli import adapter, base, caption, collect, dataset, draw, files, pick, rate, runs, score, screen, studio, train, trial, tune, wrong
from darkroom.cli.addresses import brought_near
from darkroom.errors import DarkroomError
from darkroom.files import told


class Interrupted(Exception):
    """Ctrl-C with what a job had to say of it: typer makes a bare exit code of a KeyboardInterrupt."""


class Commands(typer.core.TyperGroup):
    """All commands."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as stopped:
            raise Interrupted(str(stopped) or "Stopped.") from None


app = typer.Typer(
    cls=Commands, name="darkroom", no_args_is_help=True, add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False,
    help="Fine-tune Stable Diffusion XL on your own pictures, and see with evidence whether it got better.",
)  # fmt: skip

app.command("collect")(collect.collect_command)
app.command("screen")(screen.screen_command)
app.command("caption")(caption.caption_command)
app.add_typer(dataset.app)
app.command("train")(train.train_command)
app.command("resume")(train.resume_command)
app.command("recipes")(train.recipes_command)
app.add_typer(runs.app)
app.command("trial")(trial.trial_command)
app.command("demo")(trial.demo_command)
app.command("score")(score.score_command)
app.command("pick")(pick.pick_command)
app.command("tune-weights")(tune.tune_command)
app.command("rate")(rate.rate_command)
app.command("wrong")(wrong.wrong_command)
app.command("studio")(studio.studio_command)
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
        with brought_near(arguments, lambda: typer.main.get_command(app)) as near:
            result = app(near, standalone_mode=False)
        return result if isinstance(result, int) else 0
    except DarkroomError as error:
        _complain(str(error), type(error).__name__, as_json)
        return 2
    except (Interrupted, KeyboardInterrupt) as stopped:
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
    message = told(message)
    if as_json:
        print(json.dumps({"error": message, "kind": kind}, ensure_ascii=False))
    else:
        print(f"darkroom: {message}", file=sys.stderr)


if __name__ == "__main__":
    main()
