"""`darkroom pick`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from darkroom.cli.show import Device, Json, show


def pick_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The run folder.")],
    held_out: Annotated[str, typer.Option(metavar="FOLDER", help="Pictures of the subject that were not learned from. Default: the run's own.")] = "",
    prompt: Annotated[list[str] | None, typer.Option(help='A new prompt with {} for the subject, as in "a {} in the snow"; three or more.')] = None,
    words: Annotated[str, typer.Option("--class", metavar="WORDS", help="The class without the trigger, for drift. Default: the subject without it.")] = "",
    seeds: Annotated[int, typer.Option(help="Pictures of each prompt and step.")] = 2,
    checkpoints: Annotated[int, typer.Option(metavar="N", help="At most so many of the run's checkpoints, evenly spread.")] = 12,
    scorer: Annotated[str, typer.Option(help="A CLIP folder or hub id. Default: pocket's own, or ViT-L/14 from the hub.")] = "",
    out: Annotated[Path | None, typer.Option(metavar="FOLDER", help="Where pictures and page go; a stopped one goes on there. Default: RUN/pick.")] = None,
    device: Device = "auto",
    settings: Annotated[list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Set any key, such as steps or margin; several times.")] = None,
    as_json: Json = False,
) -> None:
    """Which checkpoint is the one to keep? Curves of all of them on held-out pictures and new prompts, and the earliest step that is as good as the best."""
    from darkroom.cli.watch import Terminal
    from darkroom.evidence.pick import Pick, run_pick
    from darkroom.spec import override

    tree = {"prompts": prompt or [], "words": words, "seeds": seeds, "checkpoints": checkpoints, "held_out": held_out, "scorer": scorer}
    pick = Pick.from_tree(override(tree, settings or ()), "pick")
    with Terminal() as watcher:
        result = run_pick(run, pick, out, device, watcher=watcher)
    folder = (out or run / "pick").resolve()
    lines = [result["sentence"], *(f"  {line}" for line in result["why"]), *(f"BEWARE: {line}" for line in result["warnings"])]
    shown = {key: result[key] for key in ("run", "step", "file", "use", "sentence", "why", "warnings", "turns", "curves")}
    show(shown | {"page": str(folder / "pick.html")}, [*lines, f"adapter  {result['file']}", f"page     {folder / 'pick.html'}"], as_json)
