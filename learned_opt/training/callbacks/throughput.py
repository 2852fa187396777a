"""How many inner steps a second go by."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.training.trainer import meta_trainer


class Throughput(Callback):
    """Logs inner steps per second of each outer step, all chains of all ranks together.

    Other callbacks and the compiling step are not counted: put it behind the callback that
    writes checkpoints and before the others.

    Attributes:
        seconds: what all outer steps took, compilation included; it is kept in checkpoints.
    """

    def __init__(self) -> None:
        self.seconds = 0.0
        self.compiled = False  # whether the first step, which compiles, is over
        self._started = 0.0

    @override
    def state_dict(self) -> dict[str, float]:
        return {"seconds": self.seconds}

    @override
    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        self.seconds = state_dict["seconds"]

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        self._started = time.perf_counter()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        seconds = time.perf_counter() - self._started
        if self.compiled:
            rate = meta_trainer(pl_module).estimator.num_inner_steps / seconds
            pl_module.log("inner_steps_per_second", rate, batch_size=1)
        self.compiled = True
        self.seconds += seconds
