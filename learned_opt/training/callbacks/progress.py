"""How far meta-training is."""

import logging
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from typing_extensions import override

from learned_opt.runtime.live_bar import LiveBar
from learned_opt.training.trainer import meta_trainer

log = logging.getLogger(__name__)


class ProgressBar(Callback):
    """Shows outer steps, meta-loss, throughput and the time that is left; only in the leader.

    Args:
        console: where to draw; stderr by default.
    """

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self.bar: LiveBar | None = None
        self.printed: set[str] = set()  # of the descriptions

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return

        step = trainer.global_step
        self.bar = LiveBar("outer step", trainer.max_steps, step, self.console)
        problems = meta_trainer(pl_module).problems.values()
        compiles = any(problem.unroll.compiles for problem in problems)
        self.bar.start("compiling" if compiles else "meta")
        if compiles and not self.bar.is_live:
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
        self.bar.update(step, "meta", _figures(metrics, self.bar.is_narrow))

    def work_on(self, description: str) -> None:
        """Show what is done between two outer steps.

        Args:
            description: one word, such as ``validating``; elsewhere than on a terminal it is
                printed the first time, when the work may have to be compiled.
        """
        if self.bar is None:
            return
        self.bar.describe(description)
        if not self.bar.is_live and description not in self.printed:
            self.console.print(f"{description} ...")
            self.printed.add(description)

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # comes after an error too
        if self.bar:
            self.bar.stop()
        self.bar = None


def _figures(metrics: Any, is_narrow: bool) -> str:
    loss = metrics["meta_loss/train"]
    rate = metrics.get("inner_steps_per_second")
    loss_name = "loss" if is_narrow else "meta-loss"
    rate_unit = "/s" if is_narrow else " inner steps/s"

    figures = f"{loss_name} {loss:.4f}"
    if rate:
        figures += f"  {rate:,.0f}{rate_unit}"
    return figures
