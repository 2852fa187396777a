"""A cell of an evaluation: one optimizer on one task at one horizon, kept in a file and run once.

Legend: T inner steps, M seeds.
"""

import hashlib
import io
import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.files import write_whole
from learned_opt.core.tree import Tree
from learned_opt.evaluation.benchmark import tune_for
from learned_opt.evaluation.guards import start_fingerprints
from learned_opt.evaluation.progress import SILENT, Progress
from learned_opt.evaluation.seeded_runs import HELDOUT, Runs, run_seeds
from learned_opt.evaluation.setting import Contender, Setting
from learned_opt.evaluation.tuning import Tuned, theta_at
from learned_opt.inner.unroll import Unroll

TEST_LOSSES = "test_losses"  # column: the test loss of a run at the measured steps
FACTS = b"learned_opt.cell"  # key of the Parquet schema's metadata


class Cell(NamedTuple):
    """The held-out runs of an optimizer, and how they came about.

    Args:
        table: a row for each seed: losses, figures on held-out data, ``start``, and the whole curve
            under ``losses``.
        tuning: learning rate, number of tries and the like; None where nothing was tuned.
        facts: seconds, identity, provenance.
    """

    table: pd.DataFrame
    tuning: dict[str, Any] | None
    facts: dict[str, Any]

    @property
    def runs(self) -> Runs:
        """The training losses ``(T, M)``, as evaluation has them."""
        losses = np.stack(self.table["losses"].tolist(), 1)  # (T, M)
        return Runs(torch.from_numpy(losses), {}, {}, self.test_losses)

    @property
    def test_losses(self) -> Tensor | None:
        """Test losses ``(P, M)`` at the measured steps; None where there were none."""
        if TEST_LOSSES not in self.table:
            return None
        return torch.from_numpy(np.stack(self.table[TEST_LOSSES].tolist(), 1))

    def steps_to_test_loss(self, target: Tensor) -> Tensor:
        """First measured step at which the test loss is at most a target, infinite where never.

        Args:
            target: of each seed, ``(M,)``.

        Returns:
            Tensor: ``(M,)``, float64.
        """
        losses = self.test_losses
        assert losses is not None, "only of runs that were measured"
        hits = losses <= target  # (P, M)
        steps = (hits.int().argmax(0) + 1) * float(self.facts["heldout_every"])
        return steps.double().where(hits.any(0), math.inf)


def num_runs(setting: Setting, contender: Contender) -> int:
    """Inner training runs of ``run_cells`` at most: where one learning rate serves two, fewer."""
    benchmark = setting.benchmark
    if not contender.tuned:
        return benchmark.num_seeds
    return benchmark.num_tuning_runs + len(setting.criteria) * benchmark.num_seeds


def run_cells(
    setting: Setting, contender: Contender, unroll: Unroll, progress: Progress = SILENT
) -> dict[str, Cell]:
    """Tune where that is due, then train on the held-out seeds.

    Args:
        setting: task and horizon.
        contender: the optimizer.
        unroll: the inner loop of the optimizer on the task.
        progress: told of the runs as they go on.

    Returns:
        dict[str, Cell]: row name -> cell; the row name is that of the contender, and where another
        learning rate is best for a second criterion, ``NAME-final`` (or mean, or test) for that.
    """
    start = time.perf_counter()
    if not contender.tuned:
        theta: Tree = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
        return {contender.name: _run(setting, unroll, theta, None, start, progress)}

    tuned = tune_for(setting.benchmark, unroll, contender.constructor, progress)
    cells: dict[str, Cell] = {}
    rates: list[float] = []
    for criterion in setting.criteria:
        rate = tuned.best(criterion)
        if rate in rates:
            progress.advance(setting.benchmark.num_seeds)
            continue  # the runs would be the same

        row_name = f"{contender.name}-{criterion.removesuffix('_loss')}"
        row_name = row_name if cells else contender.name
        theta = theta_at(contender.constructor, unroll.optimizer, rate)
        tuning = _tuning(setting, tuned, criterion)
        cells[row_name] = _run(setting, unroll, theta, tuning, start, progress)
        rates.append(rate)
        start = time.perf_counter()  # the second row is not charged for tuning

    return cells


def _run(
    setting: Setting,
    unroll: Unroll,
    theta: Tree,
    tuning: dict[str, Any] | None,
    start: float,
    progress: Progress,
) -> Cell:
    """Train on the held-out seeds.

    Args:
        setting: task and horizon.
        unroll: the inner loop.
        theta: of the optimizer, without a leading axis.
        tuning: how its learning rate was found.
        start: time at which the tuning began.
        progress: told of the runs as they go on.
    """
    benchmark = setting.benchmark
    seeds = benchmark.heldout_seeds
    tuned = time.perf_counter()
    many = tree.expand(tree.to(theta, unroll.device), len(seeds))  # leaves (M, ...)
    num_chains = benchmark.num_chains
    every = benchmark.heldout_every
    runs = run_seeds(unroll, many, HELDOUT, seeds, benchmark.horizon, num_chains, progress, every)
    facts: dict[str, Any] = {"tuning_seconds": tuned - start}
    facts["run_seconds"] = time.perf_counter() - tuned
    if every:
        facts["heldout_every"] = every

    starts = start_fingerprints(setting.family, HELDOUT, seeds)
    return Cell(runs_table(runs, starts, seeds), tuning, facts)


def _tuning(setting: Setting, tuned: Tuned, criterion: str) -> dict[str, Any]:
    return {
        "learning_rate": tuned.best(criterion),
        "at_edge": tuned.at_edge(criterion),
        "tries": len(tuned.learning_rates),
        "diverged_tries": int((~tuned.scores[criterion].isfinite()).sum()),
        "seeds": setting.benchmark.num_tuning_seeds,
        "criterion": criterion,
        "reused": tuned.num_reused,
    }


def runs_table(runs: Runs, starts: list[str], seeds: Sequence[int]) -> pd.DataFrame:
    """One row for each seed, as a cell keeps it.

    Args:
        runs: M runs.
        starts: digests of what they started from.
        seeds: of the runs.
    """
    finite = runs.losses.isfinite()
    table = pd.DataFrame({"seed": seeds, "start": starts})
    table["initial_loss"] = runs.losses[0].numpy()
    table["final_loss"] = runs.final_loss.numpy()
    table["min_loss"] = runs.min_loss.numpy()
    table["mean_loss"] = runs.mean_loss.numpy()
    table["diverged"] = (~finite[-1]).numpy()
    table["finite_steps"] = finite.sum(0).numpy()

    for name, values in runs.heldout.items():
        table[name] = values.double().numpy()

    table["losses"] = runs.losses.T.tolist()
    if runs.test_losses is not None:
        table[TEST_LOSSES] = runs.test_losses.T.tolist()
    return table


def identity(setting: Setting, contender: Contender) -> dict[str, Any]:
    """What the numbers of a cell depend on."""
    benchmark = setting.benchmark
    tuning = None
    if contender.tuned:
        several = len(setting.criteria) > 1
        tuning = {
            "criterion": list(setting.criteria) if several else setting.criteria[0],
            "lowest_lr": benchmark.lowest_lr,
            "highest_lr": benchmark.highest_lr,
            "num_lrs": benchmark.num_lrs,
            "num_tuning_seeds": benchmark.num_tuning_seeds,
        }
        if benchmark.spacing != "log":
            tuning["spacing"] = benchmark.spacing

    # left out where they are 0 or null, so that cells of before there was a choice are found
    more: dict[str, Any] = {}
    if benchmark.first_seed:
        more["first_seed"] = benchmark.first_seed
    if benchmark.heldout_every:
        more["heldout_every"] = benchmark.heldout_every

    return {
        **setting.identity,
        "horizon": benchmark.horizon,
        "num_seeds": benchmark.num_seeds,
        **more,
        "optimizer": dict(contender.identity),
        "tuning": tuning,
    }


def digest(value: Any) -> str:
    """Twelve hex digits that tell JSON values apart."""
    text = json.dumps(value, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def path_of(folder: Path, setting: Setting, contender: Contender) -> Path:
    """The file of a cell; another identity is another file."""
    name = f"{setting} {contender.name} {digest(identity(setting, contender))}.parquet"
    return folder / name.replace("/", "_").replace(" ", "-")


def write(path: Path, cells: Mapping[str, Cell], facts: Mapping[str, Any]) -> None:
    """Write the cells of a contender whole or not at all.

    Args:
        path: from ``path_of``.
        cells: by row name.
        facts: identity and provenance, kept beside what each cell says.
    """
    tables = [cell.table.assign(optimizer=name) for name, cell in cells.items()]
    described = {
        "rows": {name: {"tuning": cell.tuning, **cell.facts} for name, cell in cells.items()},
        **facts,
    }

    arrow = pa.Table.from_pandas(pd.concat(tables, ignore_index=True), preserve_index=False)
    metadata = {**(arrow.schema.metadata or {}), FACTS: json.dumps(described, default=str)}

    content = io.BytesIO()
    pq.write_table(arrow.replace_schema_metadata(metadata), content, compression="zstd")
    write_whole(path, content.getbuffer())


def read(path: Path, contender: Contender) -> dict[str, Cell]:
    """Read the cells of a contender, also those of versions that kept one row name in a file.

    Raises:
        ValueError: the file is damaged or holds no cell.
    """
    try:
        arrow = pq.read_table(path)
        table = arrow.to_pandas()
        facts = json.loads(arrow.schema.metadata[FACTS])
        if "rows" not in facts:
            return {contender.name: Cell(table, facts["tuning"], facts)}

        shared = {"identity": facts["identity"], "provenance": facts["provenance"]}
        cells = {}
        for name, described in facts["rows"].items():
            rows = table[table["optimizer"] == name].drop(columns="optimizer")
            tuning = described.pop("tuning")
            cells[name] = Cell(rows.reset_index(drop=True), tuning, {**described, **shared})
        return cells
    except (pa.ArrowException, OSError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path} is damaged or no cell of an evaluation; remove it to run it again: {error}."
        ) from error
