"""How far some work is: a live bar on a terminal, now and then a plain line elsewhere."""

import logging
import sys
import time
from datetime import timedelta
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

NARROW = 72  # columns below which the bar and some words are left out
NUM_LINES = 10  # of work that is not shown on a terminal


class LiveBar:
    """Shows how many units of some work are done, and the time that is left.

    Args:
        unit: what lines elsewhere than on a terminal call the work, such as ``outer step``.
        total: units of the whole work.
        completed: units that were done before.
        console: where to draw; stderr by default.
        seconds_between: two lines elsewhere than on a terminal are at least so far apart.
    """

    def __init__(
        self,
        unit: str,
        total: int,
        completed: float = 0,
        console: Console | None = None,
        seconds_between: float = 0.0,
    ) -> None:
        self.console = console or Console(stderr=True)
        self.unit = unit
        self.total = total
        self.seconds_between = seconds_between
        self.last_tenth = int(completed) // self._units_between
        self.last_line = time.monotonic()
        self.log_streams: list[tuple[Any, Any]] = []  # handlers and where they wrote before

        columns = _columns(self.is_narrow)
        self.bar = Progress(*columns, console=self.console, redirect_stdout=sys.stdout.isatty())
        self.task = self.bar.add_task("", total=total, figures="")
        self.bar.update(self.task, completed=completed)

    @property
    def is_narrow(self) -> bool:
        """Whether some words do not fit."""
        return self.console.width < NARROW

    @property
    def is_live(self) -> bool:
        """Whether there is a terminal to draw on."""
        return self.console.is_terminal

    def start(self, description: str) -> None:
        """Draw the bar.

        Args:
            description: of what is done first; left out where it does not fit.
        """
        self.bar.update(self.task, description=description)
        if self.is_live:
            self.bar.start()
            self._lift_log_lines()

    def update(self, completed: float, description: str, figures: str) -> None:
        """Show how far the work is.

        Args:
            completed: units that are done.
            description: of what is done at present.
            figures: what else to show, in a few words.
        """
        self.bar.update(self.task, completed=completed, description=description, figures=figures)
        if not self.is_live:
            self._print_line_if_due(int(completed), figures)

    def describe(self, description: str) -> None:
        """Show what is done at present, on a terminal."""
        self.bar.update(self.task, description=description)
        if self.is_live:
            self.bar.refresh()

    def stop(self) -> None:
        """Leave the bar as it is, and the terminal to others."""
        for handler, stream in self.log_streams:
            handler.setStream(stream)
        self.log_streams = []
        if self.is_live:
            self.bar.stop()

    @property
    def _units_between(self) -> int:
        return max(1, self.total // NUM_LINES)

    def _print_line_if_due(self, completed: int, figures: str) -> None:
        tenth = completed // self._units_between
        seconds = time.monotonic() - self.last_line
        if tenth == self.last_tenth or seconds < self.seconds_between:
            return

        self.last_tenth = tenth
        self.last_line = time.monotonic()
        line = f"{self.unit} {completed}/{self.total}  {figures}"
        if remaining := self.bar.tasks[0].time_remaining:
            line += f"  {timedelta(seconds=round(remaining))} left"
        self.console.print(line, soft_wrap=True, highlight=False)

    def _lift_log_lines(self) -> None:
        """Have log lines on the terminal go above the bar, as printed lines do.

        They would be drawn into it.
        """
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler and handler.stream.isatty():
                self.log_streams.append((handler, handler.setStream(sys.stderr)))


def _columns(narrow: bool) -> list[ProgressColumn]:
    count = MofNCompleteColumn()
    figures = TextColumn("{task.fields[figures]}", markup=False)
    remaining = TimeRemainingColumn(compact=True)
    if narrow:
        return [count, figures, remaining]

    description = TextColumn("{task.description}", markup=False)
    bar = BarColumn(bar_width=None)
    return [description, bar, count, figures, remaining]
