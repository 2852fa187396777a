"""Cheap figures of every outer step."""

import resource
import sys
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from learned_opt.estimators.base import State


class Gauges(Callback):
    """Logs the tasks that restart in each outer step, and the peak memory of the process and of the GPU in MiB."""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Count the tasks that are past their horizon: the estimate that comes restarts them."""
        state: Any = pl_module.estimator_state
        pl_module.log(
            "restarts", float(num_restarts(state)), batch_size=1, sync_dist=True, reduce_fx="sum"
        )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Log the memory."""
        unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        pl_module.log("peak_memory/process", peak / 2**20, batch_size=1)
        if pl_module.device.type == "cuda":
            pl_module.log(
                "peak_memory/cuda",
                torch.cuda.max_memory_allocated(pl_module.device) / 2**20,
                batch_size=1,
            )


def num_restarts(state: State) -> int:
    """Tasks of an estimator's state, or of all states of a mix, that are past their horizon."""
    if "horizon" in state:
        return int((state["step"] >= state["horizon"]).sum())
    return sum(num_restarts(own) for own in state.values())
