"""How many inner steps a second go by."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class Throughput(Callback):
    """Logs inner steps per second of each outer step; other callbacks and the compiling step are not counted.

    ``seconds`` is what all outer steps took, compilation included; it is kept in checkpoints.

    Args:
        steps_per_estimate: inner steps of one outer step, all chains together.
    """

    def __init__(self, steps_per_estimate: int) -> None:
        self.steps_per_estimate, self.start, self.compiled, self.seconds = (
            steps_per_estimate,
            0.0,
            False,
            0.0,
        )

    def state_dict(self) -> dict[str, float]:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting."""
        self.seconds = state_dict["seconds"]

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Log the rate."""
        seconds = time.perf_counter() - self.start
        if self.compiled:
            pl_module.log("inner_steps_per_second", self.steps_per_estimate / seconds, batch_size=1)
        self.compiled = True
        self.seconds += seconds
