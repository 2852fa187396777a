"""What a meta-training shows of itself: cheap figures at every outer step, dear ones now and then."""

import csv
import resource
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor

from learned_opt.evaluation.behaviour import Row, observe
from learned_opt.meta.estimators.base import State
from learned_opt.meta.unroll import Unroll
from learned_opt.meta.wandb import log_behaviour

COLUMNS = ("outer_step", "task", "inner_step", "tensor", "quantity", "value")  # of diagnostics.csv


class Gauges(Callback):
    """Logs the tasks that restart in each outer step, and the peak memory of the process and of the GPU in MiB."""

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Count the tasks that are past their horizon: the estimate that comes restarts them."""
        state: Any = pl_module.estimator_state
        pl_module.log("restarts", float(num_restarts(state)), batch_size=1, sync_dist=True, reduce_fx="sum")

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Log the memory."""
        unit = 1 if sys.platform == "darwin" else 2**10  # of ru_maxrss, in bytes
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
        pl_module.log("peak_memory/process", peak / 2**20, batch_size=1)
        if pl_module.device.type == "cuda":
            pl_module.log("peak_memory/cuda", torch.cuda.max_memory_allocated(pl_module.device) / 2**20, batch_size=1)


def num_restarts(state: State) -> int:
    """Tasks of an estimator's state, or of all states of a mix, that are past their horizon."""
    if "horizon" in state:
        return int((state["step"] >= state["horizon"]).sum())
    return sum(num_restarts(own) for own in state.values())


class SignalToNoise(Callback):
    """Logs ``meta_grad_snr``, how much of one estimate of the meta-gradient is signal.

    With estimates ``g = mu + noise`` of a mu that changes slowly, it is ``|mu|^2 / E |noise|^2``. Both are estimated
    without bias from weighted averages of g and of ``|g|^2`` over outer steps, weights ``decay^age``, under the
    assumption that mu is constant and the estimates independent; where the signal's estimate is negative, 0 is logged.

    Args:
        decay: of the averages; 0.9 is as good as the last 19 estimates.

    Raises:
        ValueError: the decay is not between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"signal_decay must lie between 0 and 1, got {decay}.")
        self.decay = decay
        self.sums: dict[str, Any] = {"gradient": 0.0, "square": 0.0, "weight": 0.0, "squared_weight": 0.0}

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        """Take in the estimate as it is before clipping."""
        flat = torch.cat([p.grad.detach().flatten() for p in pl_module.parameters() if p.grad is not None])
        signal, noise = self.update(flat)
        if trainer.global_step:
            pl_module.log("meta_grad_snr", signal.clamp(min=0) / noise, batch_size=1)

    def update(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Take in one estimate; returns ``|mu|^2`` and ``E |noise|^2``, which the first one alone does not tell."""
        new = {"gradient": gradient, "square": gradient.square().sum(), "weight": 1.0}
        sums = {name: self.decay * self.sums[name] + value for name, value in new.items()}
        self.sums = sums | {"squared_weight": self.decay**2 * self.sums["squared_weight"] + 1}
        mean = sums["gradient"] / sums["weight"]
        size, inverse_count = mean.square().sum(), self.sums["squared_weight"] / sums["weight"] ** 2
        noise = (
            (sums["square"] / sums["weight"] - size) / (1 - inverse_count) if inverse_count < 1 else size * torch.nan
        )
        return size - inverse_count * noise, noise

    def state_dict(self) -> dict[str, Any]:
        """The averages, so that a resumed run logs what an unbroken one does."""
        return self.sums

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take them up."""
        self.sums = state_dict


class Diagnostics(Callback):
    """Measures what the updates do to every inner tensor and writes it to ``diagnostics.csv``, and to W&B if it logs.

    Args:
        folder: run folder.
        unrolls: task -> the inner loop and its horizon.
        every: outer steps between two measurements; the last step is measured too.
        num_chains: inner trainings of one measurement, on validation seeds.
        num_points: inner steps that are measured.

    Raises:
        ValueError: a count is not positive.
    """

    def __init__(
        self, folder: Path, unrolls: Mapping[str, tuple[Unroll, int]], every: int, num_chains: int, num_points: int
    ) -> None:
        for name, count in (("every", every), ("chains", num_chains), ("points", num_points)):
            if count < 1:
                raise ValueError(f"diagnose_{name} must be at least 1, got {count}.")
        self.path, self.unrolls = folder / "diagnostics.csv", dict(unrolls)
        self.every, self.num_chains, self.num_points = every, num_chains, num_points

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the file; of a run that resumes here, keep what the checkpoint knows of."""
        if not trainer.is_global_zero:
            return
        kept = [row for row in read_diagnostics(self.path) if int(row["outer_step"]) <= trainer.global_step]
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *(row.values() for row in kept)])

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Measure when it is due and after the last step."""
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        if not due or not trainer.is_global_zero:
            return
        keys = [("valid", seed) for seed in range(self.num_chains)]
        rows = {
            task: observe(unroll, keys, horizon, self.num_points) for task, (unroll, horizon) in self.unrolls.items()
        }
        self._write(trainer.global_step, rows)
        theta = {name: p.detach() for name, p in next(iter(self.unrolls.values()))[0].optimizer.named_parameters()}
        log_behaviour(trainer.loggers, rows, theta, trainer.global_step)

    def _write(self, outer_step: int, rows: dict[str, list[Row]]) -> None:
        with self.path.open("a", newline="") as file:
            csv.writer(file).writerows(
                (outer_step, task, row.inner_step, row.tensor, row.quantity, f"{row.value:.6g}")
                for task, own in rows.items()
                for row in own
            )


def read_diagnostics(path: Path) -> list[dict[str, str]]:
    """The rows of a ``diagnostics.csv``; empty when there is none. A line that a kill has cut is no row."""
    if not path.is_file():
        return []
    lines = path.read_text().splitlines(keepends=True)
    return list(csv.DictReader(line for line in lines if line.endswith("\n")))
