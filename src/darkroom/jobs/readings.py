"""What a training's figures amount to: the loss without its jumps, which way the held-out loss goes, how fast, how long still."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

KEEP = 0.95
"""Share of the smoothed loss that stays at each step: it looks back over some twenty (TensorBoard's slider: 0.6 to 0.95)."""


@dataclass
class Readings:
    """Fed with every step's figures; tells where the training stands."""

    clock: Callable[[], float] = time.monotonic
    step: int = 0
    total: int = 0
    loss: float | None = None
    latest: dict[str, float] = field(default_factory=dict)
    held_out: list[tuple[int, float]] = field(default_factory=list)
    preview: Path | None = None
    since: tuple[float, int] | None = None
    """When the first step of this sitting began, and after which one; steps in a second are counted from there, saving and previews included."""
    now: float = 0.0

    def read(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """What step `step` of `total` gave."""
        self.step, self.total = step, total
        self.now = self.clock()
        self.since = self.since or (self.now - values.get("seconds", 0.0), step - 1)
        if "loss" in values:
            self.loss = values["loss"] if self.loss is None else KEEP * self.loss + (1 - KEEP) * values["loss"]
        if "validation" in values:
            self.held_out.append((step, values["validation"]))
        self.latest |= values

    @property
    def speed(self) -> float:
        """Steps in a second of this sitting; 0 before there are any."""
        if self.since is None:
            return 0.0
        passed = self.now - self.since[0]
        return (self.step - self.since[1]) / passed if passed > 0 else 0.0

    @property
    def seconds_left(self) -> float | None:
        """At this speed; None before there is one."""
        return (self.total - self.step) / self.speed if self.speed else None

    def rows(self) -> list[tuple[str, str]]:
        """Everything that is known, as name and value."""
        found = [("step", f"{self.step}/{self.total}")]
        found += [("loss", f"{self.loss:.4f}")] if self.loss is not None else []
        found += [("held out", f"{self.held_out[-1][1]:.4f}  {trend(self.held_out)}".rstrip())] if self.held_out else []
        for key, name, form in (("rate", "rate", ".3g"), ("grad_norm", "gradient", ".3g")):
            found += [(name, f"{self.latest[key]:{form}}")] if key in self.latest else []
        found += [("speed", f"{self.speed:.2f} steps/s")] if self.speed else []
        found += [("left", spoken(self.seconds_left))] if self.seconds_left is not None and self.step < self.total else []
        found += [("memory", f"{self.latest['memory_mib']:.0f} MiB at most")] if "memory_mib" in self.latest else []
        return found + ([("preview", str(self.preview))] if self.preview else [])

    def line(self) -> str:
        """The same in one line, without the preview."""
        (_, steps), *others = [row for row in self.rows() if row[0] != "preview"]
        return "  ".join([f"training {steps}", *(value if name == "speed" else f"{name} {value}" for name, value in others)])


def trend(measured: list[tuple[int, float]]) -> str:
    """Which way the held-out loss goes, "" of a single one: its noise is the same each time, so that small differences mean something."""
    if len(measured) < 2:
        return ""
    (step, best), last = min(measured, key=lambda each: each[1]), measured[-1][1]
    if last == best:
        return "the lowest so far"
    return f"{last / best - 1:+.1%} above step {step}'s {best:.4f}" if best > 0 else f"the lowest was step {step}'s"


def spoken(seconds: float) -> str:
    """A length of time: 42 s, 3 min 05 s, 2 h 07 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    minutes = round(seconds / 60)
    if minutes < 24 * 60:
        return f"{minutes // 60} h {minutes % 60:02d} min"
    return f"{minutes // 1440} d {minutes % 1440 // 60} h"
