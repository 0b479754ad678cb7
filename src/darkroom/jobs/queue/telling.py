"""An order as a page reads it: JSON, short for a list and whole for itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from darkroom.jobs.queue.folder import OPEN, Folder, State
from darkroom.jobs.queue.order import TRAININGS, Command, Order, option

Told = dict[str, Any]
LINES = 40


def brief(folder: Folder, order: Order | None, state: State, place: int | None, workspace: Path) -> Told:
    """One row of the list."""
    on = again(order, state, workspace)
    return {
        "id": folder.id,
        "number": folder.number,
        "kind": order.kind if order else "command",
        "command": order.name if order else "",
        "title": order.told if order else "an order that this version of Darkroom cannot read",
        "page": order.page if order else "",
        "device": order.device if order else "cpu",
        **state.model_dump(include={"state", "wish", "put", "began", "ended", "pid", "code", "message", "follows", "followed_by"}),
        "place": place,
        "again": None if on is None else list(on.argv) if isinstance(on, Command) else "draw",
        "run": order.run or None if order else None,
        "progress": folder.progress() if state.state != "waiting" else None,
    }


def full(folder: Folder, order: Order | None, told: Told) -> Told:
    """A row and all that belongs to it."""
    result, large = folder.result()
    failed = bool(result and "error" in result)
    return told | {
        "order": order.model_dump(mode="json") if order else None,
        "argv": list(order.words) if isinstance(order, Command) else None,
        "log": "\n".join(folder.log(1 << 14).splitlines()[-LINES:]),
        "folder": str(folder.path),
        "result": None if failed else result,
        "error": result if failed else None,
        **({"result_file": str(folder.result_file)} if large else {}),
    }


def again(order: Order | None, state: State, workspace: Path) -> Order | None:
    """The order that goes on with this one: of a training that has begun `resume`, else the same once more. None where there is nothing to go on with."""
    if order is None or state.state in (*OPEN, "done"):
        return None
    if isinstance(order, Command) and order.name in TRAININGS and begun(order, workspace):
        processes = option(order.argv, "--processes")
        more = ("--processes", processes) if processes else ()
        return order.model_copy(update={"argv": ("resume", order.run, *more), "title": order.told})
    return order


def begun(order: Order, workspace: Path) -> bool:
    """Whether a training has a run folder that can be gone on with."""
    return bool(order.run) and (workspace / order.run / "recipe.toml").is_file()


def standing(order: Order | None, workspace: Path) -> str:
    """What is there to go on from, in words; "" where that is not a matter of run folders."""
    from darkroom.train.run import Run

    if order is None or not isinstance(order, Command) or order.name not in TRAININGS:
        return ""
    if not begun(order, workspace):
        return "Nothing was trained yet; to resume it is to begin anew."
    saved = Run(workspace / order.run).checkpoints()
    if saved:
        return f"The last whole checkpoint is of step {saved[-1].step}; go on from it with: darkroom resume {order.run}"
    return f"There is no checkpoint yet; begin it anew with: darkroom resume {order.run}"
