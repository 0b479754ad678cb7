"""Progress on standard error, so that standard output stays free for results."""

from __future__ import annotations

from types import TracebackType
from typing import Self


class Terminal:
    """Progress bars with speed and time left; plain lines where nobody looks at a terminal."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

        self.console = Console(stderr=True, highlight=False)
        self.bar = Progress(
            TextColumn("{task.description:<10}"), BarColumn(bar_width=28), TextColumn("{task.completed:.0f}/{task.total:.0f}"),
            TextColumn("{task.fields[note]}"), TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(), console=self.console,
            refresh_per_second=4,
        )  # fmt: skip
        self.tasks: dict[str, TaskID] = {}

    def __enter__(self) -> Self:
        if self.console.is_terminal:
            self.bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self.console.is_terminal:
            self.bar.stop()

    def say(self, text: str) -> None:
        """A line for the person."""
        self.console.print(text, markup=False)

    def move(self, what: str, done: int, total: int, note: str = "") -> None:
        """Advance the bar called `what`; without a terminal, a line at every tenth."""
        if not self.console.is_terminal:
            if total <= 10 or done == total or done % max(1, total // 10) == 0:
                self.say(f"{what} {done}/{total} {note}".rstrip())
            return
        if what not in self.tasks:
            self.tasks[what] = self.bar.add_task(what, total=total, note=note)
        self.bar.update(self.tasks[what], completed=done, total=total, note=note)
