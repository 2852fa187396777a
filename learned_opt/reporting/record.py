"""A finished run as its folder holds it; pages are made of this and of nothing else."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from learned_opt.deploy.weights import load_metadata
from learned_opt.reporting import curves, layers
from learned_opt.reporting.plots import Curve, Points

KEYS = {
    "task",
    "optimizer",
    "seed",
    "horizon",
    "mean_loss",
    "final_loss",
    "steps_to_target",
    "ms_per_step",
}


@dataclass(frozen=True)
class Record:
    """Everything that a page shows of one run.

    Args:
        folder: run folder.
        rows: of ``evaluation.json``; those of the learned optimizer come first in each task.
        curves: task -> optimizer -> held-out training losses.
        metrics: of ``metrics.csv``, one row per logged outer step.
        metadata: of ``theta.json``.
        config: text of the composed config.
        overrides: words of the command line.
        diagnostics: of ``diagnostics.csv``.
        missing: a sentence for each file that is not there.
    """

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    curves: dict[str, dict[str, Curve]] = field(default_factory=dict)
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    metadata: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    overrides: list[str] = field(default_factory=list)
    diagnostics: pd.DataFrame = field(default_factory=pd.DataFrame)
    missing: list[str] = field(default_factory=list)

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that were trained on or compared on."""
        return list(
            dict.fromkeys([*(row["task"] for row in self.rows), *self.metadata.get("tasks", {})])
        )

    @property
    def learned(self) -> str:
        """The learned optimizer's name in the tables."""
        return (
            self.rows[0]["optimizer"]
            if self.rows
            else self.metadata.get("optimizer_name", self.folder.name)
        )

    def rows_of(self, task: str) -> list[dict[str, Any]]:
        """Rows of one task."""
        return [row for row in self.rows if row["task"] == task]

    def metric(self, name: str, task: str) -> Points:
        """(outer step, value) of a column of ``metrics.csv``, of this task where the run mixes several."""
        column = name if len(self.tasks) < 2 else f"{name}/{task}"
        return points(self.metrics, column)


def points(metrics: pd.DataFrame, column: str) -> Points:
    """(outer step, value) of a column; none where it is empty or infinite, and a value carried along counts once."""
    if column not in metrics:
        return []
    found: list[tuple[int, float]] = []
    for step, value in zip(metrics["step"].tolist(), metrics[column].tolist(), strict=True):
        if math.isfinite(value) and not (found and found[-1][1] == value):
            found.append((int(step), value))
    return found


def read_record(folder: Path) -> Record:
    """Read a run folder; what is not there is named in ``missing``.

    Raises:
        ValueError: it is no run folder, or a file in it is damaged.
    """
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder.")
    if not any((folder / name).is_file() for name in ("evaluation.json", "metrics.csv")):
        raise ValueError(
            f"{folder} is no run folder: it has neither evaluation.json nor metrics.csv."
        )
    overrides = folder / ".hydra/overrides.yaml"
    found: dict[str, Any] = {
        "rows": _if_there(folder / "evaluation.json", _rows),
        "curves": _if_there(folder / "curves.csv", read_curves),
        "metrics": _if_there(folder / "metrics.csv", lambda path: read_table(path, ["step"])),
        "metadata": _if_there(folder / "theta.safetensors", load_metadata),
        "config": _if_there(folder / ".hydra/config.yaml", Path.read_text),
        "overrides": _if_there(overrides, lambda path: yaml.safe_load(path.read_text())),
        "diagnostics": _if_there(
            folder / "diagnostics.csv", lambda path: read_table(path, layers.COLUMNS)
        ),
    }
    missing = [sentence for name, sentence in MISSING.items() if found[name] is None]
    if found["rows"] and found["curves"] is None:
        missing.append(OLD)
    return Record(
        folder,
        **{name: value for name, value in found.items() if value is not None},
        missing=missing,
    )


MISSING = {  # evaluations alone have no metrics.csv, and diagnostics are optional: nobody misses them
    "rows": "evaluation.json is not there: the run was not compared with baselines, or was stopped before.",
    "metadata": "theta.safetensors is not there, so nothing is known of versions, data and machine.",
    "config": ".hydra/config.yaml is not there, so the configuration is unknown.",
}
OLD = "curves.csv is not there: the run is older than that file, so there are no inner learning curves."


def _if_there(path: Path, read: Any) -> Any:
    return read(path) if path.is_file() else None


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} is not valid JSON: {error}.") from error
    if (
        not isinstance(rows, list)
        or not rows
        or not all(isinstance(row, dict) and row.keys() >= KEYS for row in rows)
    ):
        raise ValueError(
            f"{path} is not ours: it must be a list of rows with {', '.join(sorted(KEYS))}."
        )
    defaults = {"heldout": {}, "accuracy": None, "learning_rate": None}  # early runs had no heldout
    return [{**defaults, **row} for row in rows]


def read_curves(path: Path) -> dict[str, dict[str, Curve]]:
    """Task -> optimizer -> its held-out training losses, in the order of ``curves.csv``.

    Raises:
        ValueError: the file is damaged or of something else.
    """
    table, found = read_table(path, curves.COLUMNS), {}
    for task in table["task"].unique():
        for name in table.loc[table["task"] == task, "optimizer"].unique():
            own = table[(table["task"] == task) & (table["optimizer"] == name)]
            wide = own.pivot(index="step", columns="seed", values="loss")
            found.setdefault(str(task), {})[str(name)] = Curve(
                wide.index.to_numpy() + 1, wide.to_numpy(float)
            )
    return found


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV with at least these columns.

    Raises:
        ValueError: the file is damaged or lacks one.
    """
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table: {error}") from error
    if lacking := [name for name in columns if name not in table]:
        raise ValueError(f"{path} lacks the columns {', '.join(lacking)}.")
    return table
