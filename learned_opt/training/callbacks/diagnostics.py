"""What a meta-training shows of itself: cheap figures at every outer step, dear ones now and then."""

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from learned_opt.evaluation.behaviour import Row, observe
from learned_opt.inner.unroll import Unroll
from learned_opt.training.wandb import log_behaviour

COLUMNS = ("outer_step", "task", "inner_step", "tensor", "quantity", "value")  # of diagnostics.csv


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
        self,
        folder: Path,
        unrolls: Mapping[str, tuple[Unroll, int]],
        every: int,
        num_chains: int,
        num_points: int,
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
        kept = [
            row
            for row in read_diagnostics(self.path)
            if int(row["outer_step"]) <= trainer.global_step
        ]
        with self.path.open("w", newline="") as file:
            csv.writer(file).writerows([COLUMNS, *(row.values() for row in kept)])

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Measure when it is due and after the last step."""
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        if not due or not trainer.is_global_zero:
            return
        keys = [("valid", seed) for seed in range(self.num_chains)]
        rows = {
            task: observe(unroll, keys, horizon, self.num_points)
            for task, (unroll, horizon) in self.unrolls.items()
        }
        self._write(trainer.global_step, rows)
        theta = {
            name: p.detach()
            for name, p in next(iter(self.unrolls.values()))[0].optimizer.named_parameters()
        }
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
