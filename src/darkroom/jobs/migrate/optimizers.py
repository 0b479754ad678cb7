"""The optimizers of other programs by the names these have for them, with the arguments that each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from darkroom.jobs.migrate.options import FALSE, TRUE
from darkroom.jobs.migrate.report import Ledger

PAGED = "its averages stay on the card rather than being moved to main memory when that is full: the same steps"
IN_32_BITS = "the same steps: here too the averages are kept in 32 bits"


@dataclass(frozen=True)
class Known:
    """One optimizer here: their arguments as ours, and what that library takes where nothing is said and we take something else."""

    kind: str
    arguments: Mapping[str, str]
    left_out: Mapping[str, Any] = field(default_factory=dict)

    @property
    def finds_its_rate(self) -> bool:
        """Whether the rate is a factor on one that it finds."""
        return self.kind in ("prodigy", "dadaptation")


def _same(names: str, **others: str) -> dict[str, str]:
    return {name: name for name in names.split()} | others


_ADAM = _same("betas eps weight_decay")
_FINDING = _same("betas eps weight_decay decouple d0 growth_rate", use_bias_correction="bias_correction")
ADAMW = Known("adamw", _ADAM, {"weight_decay": 0.01})
ADAMW8BIT = Known("adamw8bit", _ADAM, {"weight_decay": 0.01})
ADAFACTOR = Known(
    "adafactor",
    _same("eps clip_threshold decay_rate beta1 weight_decay scale_parameter relative_step warmup_init"),
    {"scale_parameter": True, "relative_step": True},
)
LION = Known("lion", _same("betas weight_decay"), {"weight_decay": 0.0})
LION8BIT = Known("lion8bit", _same("betas weight_decay"), {"weight_decay": 0.0})
PRODIGY = Known(
    "prodigy",
    _FINDING | _same("beta3 d_coef safeguard_warmup slice_p"),
    {"weight_decay": 0.0, "bias_correction": False, "safeguard_warmup": False},
)
DADAPTATION = Known("dadaptation", _FINDING, {"weight_decay": 0.0, "bias_correction": False, "decouple": False})
SCHEDULE_FREE = Known("schedule_free", _ADAM | _same("r weight_lr_power", warmup_steps="warmup"), {"weight_decay": 0.0})

BY_NAME = {
    "adamw": (ADAMW, ""), "pagedadamw": (ADAMW, PAGED), "pagedadamw32bit": (ADAMW, PAGED), "adamw32bit": (ADAMW, IN_32_BITS),
    "adamw8bit": (ADAMW8BIT, ""), "pagedadamw8bit": (ADAMW8BIT, PAGED), "adafactor": (ADAFACTOR, ""),
    "lion": (LION, ""), "lion8bit": (LION8BIT, ""), "pagedlion8bit": (LION8BIT, PAGED), "prodigy": (PRODIGY, ""), "prodigyopt.prodigy": (PRODIGY, ""),
    "dadaptadam": (DADAPTATION, ""), "dadaptation": (DADAPTATION, "D-Adaptation as it was published; there it is a version from before that"),
    "dadaptadampreprint": (DADAPTATION, "D-Adaptation as it was published; there it is a version from before that"),
    "adamwschedulefree": (SCHEDULE_FREE, ""), "schedulefree.adamwschedulefree": (SCHEDULE_FREE, ""),
}  # fmt: skip
"""sd-scripts' optimizer_type in lower case; the reason says where it is not quite the same."""


def argument(ours: str, value: Any) -> Any:
    """An argument's text as the value of our key; None where it cannot be one."""
    text = str(value).strip().strip("()[] ")
    if ours == "growth_rate" and text.lower() in ("inf", "float('inf')", 'float("inf")'):
        return 0.0
    if text.lower() in TRUE + FALSE and ours in ("decouple", "bias_correction", "safeguard_warmup", "scale_parameter", "relative_step", "warmup_init"):
        return text.lower() in TRUE
    try:
        numbers = [float(part) for part in text.split(",") if part.strip()]
    except ValueError:
        return None
    pair = ours == "betas" or (ours == "eps" and len(numbers) == 2)
    if len(numbers) != (2 if pair else 1):
        return None
    return numbers if pair else int(numbers[0]) if ours in ("slice_p", "warmup") else numbers[0]


def one_rate(ledger: Ledger, name: str) -> None:
    """A self-setting optimizer has one rate: what was another for a part is told, and a small one warned of."""
    _level(ledger, "no_equal", f"{name} finds one rate for all that is learned")
    if ledger.recipe["optimizer"]["rate"] < 0.1:
        ledger.todo.append(
            f"{name} finds its rate, and optimizer.rate is a factor on it that should be about 1: {ledger.recipe['optimizer']['rate']:g} is small."
        )


def relative_steps(ledger: Ledger) -> None:
    """Adafactor with relative steps takes no notice of a rate, in sd-scripts as here."""
    ledger.put("optimizer.rate", 1.0)
    why = "Adafactor's relative steps set the rate, there as here"
    _retell(ledger, "optimizer.rate", "implied", why)
    _level(ledger, "implied", why)


def _level(ledger: Ledger, outcome: Any, why: str) -> None:
    """Every part at the one rate; what a rate of 0 keeps as it is stays so."""
    method = ledger.recipe["method"]
    if method.get("text_rate", 1.0) != 1.0 or "text_rate_2" in method:
        method.pop("text_rate_2", None)
        ledger.put("method.text_rate", 1.0)
        _retell(ledger, "method.text_rate", outcome, f"{why}: method.text_rate = 1.0")
    if any(method.get("rates", {}).values()):
        kept = {word: rate for word, rate in method.pop("rates").items() if not rate}
        if kept:
            ledger.put("method.rates", kept)
        _retell(ledger, "method.rates", outcome, why + (": places of rate 0 are left as they are, the others have the one rate" if kept else ""))


def _retell(ledger: Ledger, target: str, outcome: Any, why: str) -> None:
    """Rows that told of `target` say now what became of it instead."""
    for index, row in enumerate(ledger.rows):
        if row.target.startswith(target):
            ledger.rows[index] = type(row)(row.source_key, row.value, outcome, "", why, row.given)


def forget_rates(ledger: Ledger) -> None:
    """The rate of a self-setting optimizer that is none here says nothing to AdamW."""
    ledger.put("optimizer.rate", 1e-4)
    _retell(ledger, "optimizer.rate", "no_equal", "it is a self-setting optimizer's: optimizer.rate = 0.0001 is written down")
