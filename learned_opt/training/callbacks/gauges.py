"""Cheap figures of every outer step."""

import resource
import sys
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.training.trainer import meta_trainer

MIB = 2**20  # bytes


class Gauges(Callback):
    """Logs how many tasks restart in each outer step, and the peak memory in MiB.

    The memory is that of the process and of its GPU.
    """

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        # tasks that are past their horizon: the estimate that comes restarts them
        restarts = float(num_restarts(meta_trainer(pl_module).estimator_state))
        pl_module.log("restarts", restarts, batch_size=1, sync_dist=True, reduce_fx="sum")

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        pl_module.log("peak_memory/process", peak / MIB, batch_size=1)

        if pl_module.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(pl_module.device)
            pl_module.log("peak_memory/cuda", peak / MIB, batch_size=1)


def num_restarts(state: Any) -> int:
    """Tasks of an estimator's state that are past their horizon, in a mix those of all tasks.

    A state without horizons, as an estimator of a user's own may have, counts none.
    """
    if not isinstance(state, dict):
        return 0
    if "horizon" in state:
        return int((state["step"] >= state["horizon"]).sum())
    return sum(num_restarts(part) for part in state.values())
