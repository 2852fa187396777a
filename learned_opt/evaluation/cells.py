"""One cell of an evaluation: one optimizer on one task at one horizon, kept in a file so that it is run once.

Legend: T inner steps, M seeds.
"""

import hashlib
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.evaluation.benchmark import Benchmark, tune_for
from learned_opt.evaluation.guards import start_fingerprints
from learned_opt.evaluation.seeded_runs import HELDOUT, Runs, run_seeds
from learned_opt.evaluation.tuning import theta_at
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec
from tasks.base import TaskFamily

FACTS = b"learned_opt.cell"  # key of the Parquet schema's metadata
CRITERIA = ("final_loss", "mean_loss")


@dataclass(frozen=True)
class Contender:
    """An optimizer to compare.

    Args:
        name: its name in tables.
        constructor: ``(spec)``, ready to use; ``(spec, lr=...)`` for one that is tuned.
        identity: what it was made of, theta included.
        trained: ``theta.json`` of a learned optimizer; None for a baseline.
        fixed: a baseline that keeps the learning rate it was made with, as whoever does not tune has it.
    """

    name: str
    constructor: Callable[..., MetaOptimizer]
    identity: Mapping[str, Any]
    trained: Mapping[str, Any] | None = None
    fixed: bool = False

    @property
    def tuned(self) -> bool:
        """Whether its learning rate is tuned on the task."""
        return self.trained is None and not self.fixed


@dataclass(frozen=True)
class Setting:
    """A task, how long it is trained, and how.

    Args:
        task: its name in tables.
        family: the inner problems.
        spec: permutation spec of its weights.
        benchmark: horizon, seeds and tuning budget.
        baselines: the tuned optimizers; schedules may depend on the horizon.
        config: what the task was made of, without what its description says; tells equal tasks from others.
        compile: compile the inner steps.
        device: where to train.
        precision: of ``Unroll``.
        axis: axis of the generalisation card that it is a point of; empty for a task itself.
        point: which point.
    """

    task: str
    family: TaskFamily
    spec: PermutationSpec
    benchmark: Benchmark
    baselines: Sequence[Contender] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    compile: bool = True
    device: str = "cpu"
    precision: str = "float32"
    axis: str = ""
    point: str = ""

    @property
    def where(self) -> dict[str, Any]:
        """Its columns in tables."""
        return {
            "task": self.task,
            "horizon": self.benchmark.horizon,
            "axis": self.axis,
            "point": self.point,
        }

    def __str__(self) -> str:
        """Its name in sentences."""
        return " ".join(
            filter(None, (self.task, self.axis, self.point, f"horizon {self.benchmark.horizon}"))
        )

    @property
    def identity(self) -> dict[str, Any]:
        """Everything but the optimizer that numbers depend on, without the horizon."""
        return {
            "task": {"config": self.config, "facts": self.family.describe()},
            "num_chains": self.benchmark.num_chains,
            "compile": self.compile,
            "device": self.device,
            "precision": self.precision,
        }


class Cell(NamedTuple):
    """The held-out runs of a cell, and how they came about.

    Args:
        table: a row for each seed: losses, figures on held-out data, ``start``, and the whole curve under ``losses``.
        facts: identity, tuning, seconds, provenance.
    """

    table: pd.DataFrame
    facts: dict[str, Any]

    @property
    def runs(self) -> Runs:
        """The training losses, as evaluation has them."""
        return Runs(torch.from_numpy(np.stack(self.table["losses"].tolist(), 1)), {}, {})


def identity(setting: Setting, contender: Contender, criterion: str) -> dict[str, Any]:
    """What the numbers of a cell depend on."""
    benchmark = setting.benchmark
    grid = {
        name: getattr(benchmark, name)
        for name in ("lowest_lr", "highest_lr", "num_lrs", "num_tuning_seeds")
    }
    tuning = {"criterion": criterion, **grid} if contender.tuned else None
    sizes = {"horizon": benchmark.horizon, "num_seeds": benchmark.num_seeds}
    return {**setting.identity, **sizes, "optimizer": dict(contender.identity), "tuning": tuning}


def digest(value: Any) -> str:
    """Twelve hex digits that tell JSON values apart."""
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:12]


def run_cell(
    setting: Setting, contender: Contender, unroll: Unroll, criterion: str
) -> tuple[pd.DataFrame, dict]:
    """Tune where that is due, then train on the held-out seeds.

    Args:
        setting: task and horizon.
        contender: the optimizer.
        unroll: the inner loop of the optimizer on the task.
        criterion: what it is tuned for, ``final_loss`` or ``mean_loss``.

    Returns:
        tuple: the table of a ``Cell``, and what was tuned and how long everything took.
    """
    benchmark, start = setting.benchmark, time.perf_counter()
    facts: dict[str, Any] = {"tuning": None}
    theta: Tree = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
    if contender.tuned:
        lr, facts["tuning"] = _tune(benchmark, contender, unroll, criterion)
        theta = theta_at(contender.constructor, unroll.optimizer, lr)
    tuned = time.perf_counter()
    seeds = range(benchmark.num_seeds)
    many = tree.expand(tree.to(theta, unroll.device), len(seeds))
    runs = run_seeds(unroll, many, HELDOUT, seeds, benchmark.horizon, benchmark.num_chains)
    facts["tuning_seconds"], facts["run_seconds"] = tuned - start, time.perf_counter() - tuned
    return _table(runs, start_fingerprints(setting.family, HELDOUT, seeds)), facts


def _tune(
    benchmark: Benchmark, contender: Contender, unroll: Unroll, criterion: str
) -> tuple[float, dict[str, Any]]:
    tuned = tune_for(benchmark, unroll, contender.constructor)
    lr, tries = tuned.best(criterion), len(tuned.learning_rates)
    diverged = int((~tuned.scores[criterion].isfinite()).sum())
    facts = {
        "learning_rate": lr,
        "at_edge": tuned.at_edge(criterion),
        "tries": tries,
        "diverged_tries": diverged,
    }
    return lr, {
        **facts,
        "seeds": benchmark.num_tuning_seeds,
        "criterion": criterion,
        "reused": tuned.num_reused,
    }


def _table(runs: Runs, starts: list[str]) -> pd.DataFrame:
    finite = runs.losses.isfinite()
    columns = {
        "seed": range(len(starts)),
        "start": starts,
        "initial_loss": runs.losses[0],
        "final_loss": runs.final_loss,
        "min_loss": runs.min_loss,
        "mean_loss": runs.mean_loss,
        "diverged": ~finite[-1],
        "finite_steps": finite.sum(0),
        **{name: values.double() for name, values in runs.heldout.items()},
        "losses": runs.losses.T.tolist(),
    }
    return pd.DataFrame(
        {name: v.numpy() if isinstance(v, torch.Tensor) else v for name, v in columns.items()}
    )


def path_of(folder: Path, setting: Setting, contender: Contender, criterion: str) -> Path:
    """The file of a cell; another identity is another file."""
    key = digest(identity(setting, contender, criterion))
    return folder / f"{setting} {contender.name} {key}.parquet".replace("/", "_").replace(" ", "-")


def write(path: Path, table: pd.DataFrame, facts: dict[str, Any]) -> None:
    """Write a cell whole or not at all."""
    arrow = pa.Table.from_pandas(table, preserve_index=False)
    arrow = arrow.replace_schema_metadata(
        {**(arrow.schema.metadata or {}), FACTS: json.dumps(facts, default=str)}
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_suffix(f".{os.getpid()}.part")
    pq.write_table(arrow, beside, compression="zstd")
    beside.replace(path)


def read(path: Path) -> Cell:
    """Read a cell.

    Raises:
        ValueError: the file is damaged or no cell.
    """
    try:
        arrow = pq.read_table(path)
        return Cell(arrow.to_pandas(), json.loads(arrow.schema.metadata[FACTS]))
    except (pa.ArrowException, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is damaged or no cell of an evaluation; remove it to run it again: {error}."
        ) from error
