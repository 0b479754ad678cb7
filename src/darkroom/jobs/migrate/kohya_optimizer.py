"""optimizer_type of sd-scripts with its arguments, and the schedule of its rate."""

from __future__ import annotations

from darkroom.errors import RecipeError
from darkroom.jobs.migrate import convert
from darkroom.jobs.migrate.optimizers import BY_NAME, Known, argument, forget_rates, one_rate, relative_steps
from darkroom.jobs.migrate.report import Ledger, Row

OLD_FLAGS = {"use_8bit_adam": "AdamW8bit", "use_lion_optimizer": "Lion"}
CYCLES, POWER = "lr_scheduler_num_cycles", "lr_scheduler_power"


def optimizer(ledger: Ledger, steps: int | None) -> None:
    """The optimizer, or AdamW with a line to do where it is none here; then its arguments and its schedule."""
    name = _name(ledger)
    known, why = BY_NAME.get(name.lower(), (None, ""))
    if known is None:
        _stranger(ledger, name)
        convert.schedule(ledger, steps, CYCLES, POWER)
        return
    ledger.put("optimizer.kind", known.kind)
    if not any(ledger[key] for key in OLD_FLAGS):
        ledger.map("optimizer_type", "optimizer.kind", known.kind, why)
    _arguments(ledger, known)
    _left_out(ledger, known)
    settings = ledger.recipe["optimizer"]
    if known.finds_its_rate:
        one_rate(ledger, name)
    if known.kind == "adafactor":
        settings["relative_step"] = settings["relative_step"] or settings.get("warmup_init", False)  # sd-scripts turns it on then
    if settings.get("relative_step"):
        relative_steps(ledger)
        convert.no_schedule(ledger, CYCLES, POWER, "Adafactor's relative steps set the rate, there as here")
    elif known.kind == "schedule_free":
        convert.no_schedule(ledger, CYCLES, POWER, "a schedule-free optimizer takes no notice of it, there as here")
    else:
        convert.schedule(ledger, steps, CYCLES, POWER)


def _name(ledger: Ledger) -> str:
    """optimizer_type, or what the old flags say. Raises RecipeError where both do."""
    for key, meant in OLD_FLAGS.items():
        if ledger[key] and ledger["optimizer_type"]:
            raise RecipeError(f"{key} and optimizer_type are both given, which sd-scripts refuses. Keep one.")
        if ledger[key]:
            ledger.tell(key, f"optimizer.kind = {BY_NAME[meant.lower()][0].kind!r}")
        else:
            ledger.imply(key, "off")
    return str(ledger["optimizer_type"] or next((meant for key, meant in OLD_FLAGS.items() if ledger[key]), "AdamW"))


def _stranger(ledger: Ledger, name: str) -> None:
    ledger.put("optimizer.kind", "adamw")
    ledger.lack("optimizer_type", "it is no optimizer here: AdamW is written down, which `darkroom recipes` has others beside")
    if any(word in name.lower() for word in convert.SELF_SETTING):
        forget_rates(ledger)
        ledger.todo.append(f"{name} finds its rate by itself, AdamW does not: optimizer.rate = 0.0001 was written down. Try prodigy, or look at a trial.")
    else:
        ledger.todo.append(f"The rate is {name}'s: AdamW may want another. Try 0.0001 and look at a trial.")
    _arguments(ledger, Known("adamw", {}))


def _arguments(ledger: Ledger, known: Known) -> None:
    """optimizer_args, one row each."""
    key = "optimizer_args"
    parts = convert.arguments(ledger[key])
    if not parts:
        ledger.imply(key, "empty")
        return
    ledger.given.pop(key)
    for name, value in parts.items():
        shown, ours = f"{ledger.shown(key)} {name}", known.arguments.get(name)
        found = argument(ours, value) if ours else None
        if ours and str(value) == "None":
            ledger.note(shown, value, "implied", why="not set")
        elif ours is None or found is None:
            ledger.note(shown, value, "no_equal", why=f"{known.kind} has no such setting here")
        else:
            ledger.put(f"optimizer.{ours}", found)
            ledger.note(shown, value, "mapped", f"optimizer.{ours} = {found!r}")


def _left_out(ledger: Ledger, known: Known) -> None:
    """What the library takes where nothing is said, and we take something else."""
    for ours, value in known.left_out.items():
        if ours not in ledger.recipe["optimizer"]:
            ledger.put(f"optimizer.{ours}", value)
            theirs = next(name for name, mine in known.arguments.items() if mine == ours)
            target = f"optimizer.{ours} = {str(value).lower() if isinstance(value, bool) else value}"
            ledger.rows.append(Row(f"optimizer_args {theirs}", value, "mapped", target, "that optimizer's own, where nothing is said", given=False))
