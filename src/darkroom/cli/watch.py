"""Progress on standard error, so that standard output stays free for results; and in a file, where the environment asks for one (`DARKROOM_PROGRESS`)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from darkroom.files import told

if TYPE_CHECKING:
    from rich.console import Console, RenderableType


class Terminal:
    """Progress bars with speed and time left, and a live table of a training; plain lines where nobody looks at a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        from rich.console import Console
        from rich.live import Live
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        from darkroom.jobs.ledger import Ledger
        from darkroom.jobs.readings import Readings

        self.console = console or Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description:<10}"), BarColumn(bar_width=28), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}
        self.readings = Readings()
        self.ledger = Ledger.asked(complain=self._print)
        self.live = Live(get_renderable=self._page, console=self.console, refresh_per_second=4)

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.ledger:
            self.ledger.close()
        if self.console.is_terminal:
            self.live.stop()

    def say(self, text: str) -> None:
        """A line for the person."""
        self._print(text)
        if self.ledger:
            self.ledger.say(text)

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Advance the bar called `what`; without a terminal, a line at every tenth."""
        if self.ledger:
            self.ledger.move(what, done, total, note)
        if not self.console.is_terminal:
            if _worth_a_line(done, total):
                self._print(f"{what} {done}/{total} {note}".rstrip())
            return
        self._advance(what, done, total, note)

    def _advance(self, what: str, done: int, total: int, note: str = "") -> None:
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total, note=note)
        self.bar.update(self.tasks[what], completed=done, total=total, note=note)

    def figures(self, step: int, total: int, values: Mapping[str, float]) -> None:
        """The table; without a terminal, a line at every tenth of the steps and wherever the held-out loss was measured."""
        self.readings.read(step, total, values)
        if self.ledger:
            self.ledger.figures(step, total, values)
        if self.console.is_terminal:
            self._advance("training", step, total)
        elif _worth_a_line(step, total) or "validation" in values:
            self._print(self.readings.line())

    def picture(self, step: int, path: Path) -> None:
        """A row of the table."""
        self.readings.preview = path
        if self.ledger:
            self.ledger.picture(step, path)

    def _print(self, text: str) -> None:
        self.console.print(told(text), markup=False, soft_wrap=not self.console.is_terminal)

    def _page(self) -> RenderableType:
        """The bars, and below them the table once there is a training."""
        from rich.console import Group
        from rich.table import Table

        if not self.readings.total:
            return self.bar
        table = Table.grid(padding=(0, 2))
        for name, value in self.readings.rows()[1:]:  # the bar has the step
            table.add_row(f"[dim]{name}[/dim]", _escaped(value))
        return Group(self.bar, table)


def _worth_a_line(done: int, total: int) -> bool:
    return total <= 10 or done == total or done % max(1, total // 10) == 0


def _escaped(text: str) -> str:
    from rich.markup import escape

    return escape(text)
