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
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from typing_extensions import override

log = logging.getLogger(__name__)

NARROW = 72  # columns below which the bar and some words are left out
NUM_LINES = 10  # of a run that is not on a terminal


class ProgressBar(Callback):
    """Shows outer steps, meta-loss, throughput and the time that is left; only in the leader.

    Args:
        console: where to draw; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar: Progress | None = None
        self.log_streams: list[tuple[Any, Any]] = []  # handlers and where they wrote before

    @property
    def is_narrow(self) -> bool:
        """Whether some words do not fit."""
        return self.console.width < NARROW

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return

        columns = _columns(self.is_narrow)
        self.bar = Progress(*columns, console=self.console, redirect_stdout=sys.stdout.isatty())
        # the first step compiles
        self.bar.add_task(
            "compiling", total=trainer.max_steps, completed=trainer.global_step, figures=""
        )
        if self.console.is_terminal:
            self.bar.start()
            self._lift_log_lines()
        else:
            self.console.print("compiling the inner step ...")

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        if self.bar is None:
            return

        step = trainer.global_step
        metrics = trainer.callback_metrics
        logged = ", ".join(f"{name} {value:.4g}" for name, value in metrics.items())
        log.debug("outer step %d: %s", step, logged)

        figures = self._figures(metrics)
        (task,) = self.bar.tasks
        self.bar.update(task.id, completed=step, description="meta", figures=figures)
        line_due = step % max(1, trainer.max_steps // NUM_LINES) == 0
        if line_due and not self.console.is_terminal:
            self._print_line(f"outer step {step}/{trainer.max_steps}  {figures}", task.id)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # comes after an error too
        for handler, stream in self.log_streams:
            handler.setStream(stream)
        self.log_streams = []

        if self.bar and self.console.is_terminal:
            self.bar.stop()
        self.bar = None

    def _figures(self, metrics: Any) -> str:
        loss = metrics["meta_loss/train"]
        rate = metrics.get("inner_steps_per_second")
        loss_name = "loss" if self.is_narrow else "meta-loss"
        rate_unit = "/s" if self.is_narrow else " inner steps/s"

        figures = f"{loss_name} {loss:.4f}"
        if rate:
            figures += f"  {rate:,.0f}{rate_unit}"
        return figures

    def _print_line(self, line: str, task_id: TaskID) -> None:
        assert self.bar is not None, "on_train_start makes it"
        remaining = self.bar.tasks[task_id].time_remaining
        if remaining:
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
    figures = TextColumn("{task.fields[figures]}")
    remaining = TimeRemainingColumn(compact=True)
    if narrow:
        return [count, figures, remaining]

    description = TextColumn("{task.description}")
    bar = BarColumn(bar_width=None)
    return [description, bar, count, figures, remaining]
