"""What the updates do to every inner tensor, measured now and then."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.core.files import write_text
from learned_opt.evaluation.behaviour import Row, observe
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.trainer import meta_trainer
from learned_opt.training.wandb import log_behaviour
from learned_opt.training.whole_lines import read_rows

COLUMNS = ("outer_step", "task", "inner_step", "tensor", "quantity", "value")  # of diagnostics.csv
TEXTS = ("task", "tensor", "quantity")  # the columns that hold text


class Diagnostics(Callback):
    """Measures what the updates do to every inner tensor; only in the leader.

    It writes to ``diagnostics.csv``, and to W&B if that logs.

    Args:
        every: outer steps between two measurements; the last step is measured too.
        num_chains: inner trainings of one measurement, on validation seeds.
        num_points: inner steps that are measured.

    Raises:
        ValueError: a count is not positive.
    """

    def __init__(self, every: int, num_chains: int, num_points: int) -> None:
        counts = {"every": every, "num_chains": num_chains, "num_points": num_points}
        for name, count in counts.items():
            if count < 1:
                raise ValueError(f"{name} must be at least 1, got {count}.")
        self.every = every
        self.num_chains = num_chains
        self.num_points = num_points

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.is_global_zero:
            return

        # of a run that resumes here, what the checkpoint knows of stays
        path = _path(trainer)
        rows: list[Sequence[str]] = [COLUMNS]
        for row in read_diagnostics(path):
            if int(row["outer_step"]) <= trainer.global_step:
                rows.append(list(row.values()))
        write_text(path, _as_csv(rows))

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        if not due or not trainer.is_global_zero:
            return

        module = meta_trainer(pl_module)
        keys = [("valid", seed) for seed in range(self.num_chains)]
        behaviour: dict[str, list[Row]] = {}
        for problem in module.problems.values():
            rows = observe(problem.unroll, keys, problem.horizon, self.num_points)
            behaviour[problem.task] = rows

        _append(_path(trainer), trainer.global_step, behaviour)
        log_behaviour(trainer.loggers, behaviour, module.detached_theta, trainer.global_step)


def _path(trainer: Trainer) -> Path:
    return RunFolder(Path(trainer.default_root_dir)).diagnostics


def _append(path: Path, outer_step: int, behaviour: Mapping[str, Sequence[Row]]) -> None:
    lines = []
    for task, rows in behaviour.items():
        for row in rows:
            value = f"{row.value:.6g}"
            lines.append((outer_step, task, row.inner_step, row.tensor, row.quantity, value))

    with path.open("a", encoding="utf-8", newline="") as file:
        file.write(_as_csv(lines))


def _as_csv(rows: Iterable[Sequence[Any]]) -> str:
    content = io.StringIO(newline="")
    csv.writer(content).writerows(rows)
    return content.getvalue()


def read_diagnostics(path: Path) -> list[dict[str, str]]:
    """The rows of a ``diagnostics.csv``; empty when there is none.

    A line that a kill has cut is no row.

    Raises:
        RunError: the file is damaged.
    """
    return read_rows(path, COLUMNS[0], TEXTS)
