"""How far meta-training is: a live bar on a terminal, now and then a plain line elsewhere."""

import logging
import sys
from datetime import timedelta
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

log = logging.getLogger(__name__)

NARROW = 72  # columns below which the bar and some words are left out
NUM_LINES = 10  # of a run that is not on a terminal


class ProgressBar(Callback):
    """Shows outer steps, meta-loss, throughput and the time that is left; only in the first process.

    Args:
        console: where to draw; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar: Progress | None = None
        self.log_streams: list[tuple[Any, Any]] = []

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Show the bar; the first step compiles."""
        if not trainer.is_global_zero:
            return
        columns = _columns(self.console.width < NARROW)
        self.bar = Progress(*columns, console=self.console, redirect_stdout=sys.stdout.isatty())
        self.bar.add_task(
            "compiling", total=trainer.max_steps, completed=trainer.global_step, figures=""
        )
        if self.console.is_terminal:
            self.bar.start()
            self._lift_log_lines()
        else:
            self.console.print("compiling the inner step ...")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Move the bar, or print a line."""
        if self.bar is None:
            return
        narrow, metrics = self.console.width < NARROW, trainer.callback_metrics
        loss, rate = metrics["meta_loss/train"], metrics.get("inner_steps_per_second")
        words = ("loss", "/s") if narrow else ("meta-loss", " inner steps/s")
        figures = f"{words[0]} {loss:.4f}" + (f"  {rate:,.0f}{words[1]}" if rate else "")
        logged = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        log.debug("outer step %d: %s", trainer.global_step, logged)
        (task,) = self.bar.tasks
        self.bar.update(task.id, completed=trainer.global_step, description="meta", figures=figures)
        if (
            not self.console.is_terminal
            and trainer.global_step % max(1, trainer.max_steps // NUM_LINES) == 0
        ):
            left = timedelta(seconds=round(task.time_remaining)) if task.time_remaining else None
            line = f"outer step {trainer.global_step}/{trainer.max_steps}  {figures}"
            self.console.print(
                line + (f"  {left} left" if left else ""), soft_wrap=True, highlight=False
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Take the bar down, also after an error."""
        for handler, stream in self.log_streams:
            handler.setStream(stream)
        self.log_streams = []
        if self.bar and self.console.is_terminal:
            self.bar.stop()
        self.bar = None

    def _lift_log_lines(self) -> None:
        """Log lines on the terminal go above the bar, as printed lines do; they would be drawn into it."""
        for handler in logging.getLogger().handlers:
            if type(handler) is logging.StreamHandler and handler.stream.isatty():
                self.log_streams.append((handler, handler.setStream(sys.stderr)))


def _columns(narrow: bool) -> list[ProgressColumn]:
    count, figures = MofNCompleteColumn(), TextColumn("{task.fields[figures]}")
    left = TimeRemainingColumn(compact=True)
    if narrow:
        return [count, figures, left]
    return [TextColumn("{task.description}"), BarColumn(bar_width=None), count, figures, left]
