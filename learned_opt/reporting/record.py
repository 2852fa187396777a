"""A run as its folder holds it; reports are made of this and of nothing else."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from learned_opt.deploy.plain_data import read_yaml
from learned_opt.deploy.weights import load_metadata
from learned_opt.evaluation.curves import Curves, read_curves
from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.results import Results, read_evaluation
from learned_opt.reporting import update_plots
from learned_opt.reporting.plots import Points
from learned_opt.runtime.run_folder import RunFolder

T = TypeVar("T")
OF_A_TASK = "meta_loss/train/"  # columns of metrics.csv, behind it the name of a task of a mix
TEXTS = ("task", "optimizer", "tensor", "quantity")  # columns of text in the tables of a run
COUNTS = ("step", "outer_step", "inner_step", "seed")  # columns in which every row has a number

# nobody misses metrics.csv, which evaluations lack, or diagnostics, which are optional
NO_EVALUATION = (
    "evaluation.json is not there: the run was not compared with baselines, or was stopped before."
)
NO_THETA = "theta.safetensors is not there, so nothing is known of versions, data and machine."
NO_CONFIG = ".hydra/config.yaml is not there, so the configuration is unknown."
NO_CURVES = (
    "curves.parquet is not there: the run is older than that file, so there are no inner learning "
    "curves."
)


@dataclass(frozen=True)
class Record:
    """Everything that a report shows of one run.

    Args:
        folder: of the run.
        results: of the evaluation; None where there is none.
        metrics: of ``metrics.csv``, one row per logged outer step.
        metadata: of ``theta.json``.
        config: text of the composed config.
        overrides: words of the command line.
        diagnostics: of ``diagnostics.csv``.
        missing: a sentence for each file that is not there.
    """

    folder: Path
    results: Results | None = None
    metrics: pd.DataFrame = field(default_factory=pd.DataFrame)
    metadata: dict[str, Any] = field(default_factory=dict)
    config: str = ""
    overrides: list[str] = field(default_factory=list)
    diagnostics: pd.DataFrame = field(default_factory=pd.DataFrame)
    missing: list[str] = field(default_factory=list)

    @property
    def frame(self) -> pd.DataFrame:
        """Rows of the evaluation on the tasks themselves, without the points of a card."""
        if self.results is None:
            return Results().frame
        return select(self.results.frame, axis="")

    @property
    def tasks(self) -> list[str]:
        """Names of the tasks that were trained on or compared on."""
        compared = distinct(self.frame, "task")
        return list(dict.fromkeys([*compared, *self.metadata.get("tasks", {})]))

    @property
    def trained_tasks(self) -> list[str]:
        """Names of the tasks of the meta-training; of a mix also before it has ended."""
        if self.tasks:
            return list(self.metadata.get("tasks", {})) or self.tasks
        return [name.removeprefix(OF_A_TASK) for name in self.metrics if name.startswith(OF_A_TASK)]

    @property
    def learned(self) -> str:
        """The learned optimizer's name in the tables."""
        if self.results and self.results.learned:
            return self.results.learned[0]
        return self.metadata.get("optimizer_name", self.folder.name)

    def metric(self, name: str, task: str) -> Points:
        """(outer step, value) of a column of ``metrics.csv``, of this task in a mix."""
        column = name if len(self.trained_tasks) < 2 else f"{name}/{task}"
        return points(self.metrics, column)


def points(metrics: pd.DataFrame, column: str) -> Points:
    """(outer step, value) of a column.

    None where it is empty or infinite; a value that is carried along counts once.
    """
    if column not in metrics:
        return []
    kept: list[tuple[int, float]] = []
    for step, value in zip(metrics["step"].tolist(), metrics[column].tolist(), strict=True):
        is_new = not kept or kept[-1][1] != value
        if math.isfinite(value) and is_new:
            kept.append((int(step), value))
    return kept


def read_record(path: Path) -> Record:
    """Read a run folder; what is not there is named in ``missing``.

    Raises:
        ValueError: it is no run folder, or a file in it is damaged.
    """
    if not path.is_dir():
        raise ValueError(f"{path} is no folder.")

    folder = RunFolder(path)
    if not folder.evaluation.is_file() and not folder.metrics.is_file():
        raise ValueError(
            f"{path} is no run folder: it has neither evaluation.json nor metrics.csv."
        )

    missing = []
    results = _if_there(folder.evaluation, read_evaluation, None)
    if results is None:
        missing.append(NO_EVALUATION)
    else:
        results.curves = _curves(folder, results.frame)
        if not results.curves:
            missing.append(NO_CURVES)

    # an evaluation has no theta, but its results hold the same facts
    if not folder.theta.is_file() and not (results and results.facts):
        missing.append(NO_THETA)

    if not folder.config.is_file():
        missing.append(NO_CONFIG)

    return Record(
        path,
        results,
        metrics=_if_there(folder.metrics, _metrics, pd.DataFrame()),
        metadata=_if_there(folder.theta, load_metadata, {}),
        config=_if_there(folder.config, _config, ""),
        overrides=_if_there(folder.overrides, _words, []),
        diagnostics=_if_there(folder.diagnostics, _diagnostics, pd.DataFrame()),
        missing=missing,
    )


def _if_there(path: Path, read: Callable[[Path], T], missing: T) -> T:
    return read(path) if path.is_file() else missing


def _config(path: Path) -> str:
    """The text of a config, which others parse again."""
    if not isinstance(read_yaml(path), dict):
        raise ValueError(f"{path} must hold a mapping, as a config does.")
    return path.read_text("utf-8")


def _metrics(path: Path) -> pd.DataFrame:
    return read_table(path, ["step"])


def _diagnostics(path: Path) -> pd.DataFrame:
    return read_table(path, update_plots.COLUMNS)


def _words(path: Path) -> list[str]:
    words = read_yaml(path) or []
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise ValueError(f"{path} must hold a list of texts, the words of a command line.")
    return words


def _curves(folder: RunFolder, frame: pd.DataFrame) -> Curves:
    """Learning curves of a run, also of one that has written them as CSV."""
    if folder.curves.is_file():
        return read_curves(folder.curves)

    earlier = folder.curves.with_suffix(".csv")
    if not earlier.is_file():
        return {}

    table = read_table(earlier, ("task", "seed", "optimizer", "step", "loss"))
    horizons = dict(zip(frame["task"], frame["horizon"], strict=True))

    curves: Curves = {}
    for (task, optimizer), rows in groups(table, ["task", "optimizer"]):
        losses = rows.pivot(index="step", columns="seed", values="loss").to_numpy(float)
        # the CSV does not tell the horizon: the evaluation does, or else the length of the curve
        horizon = int(horizons.get(task, len(losses)))
        curves.setdefault((str(task), horizon), {})[str(optimizer)] = losses

    return curves


def read_table(path: Path, columns: Sequence[str]) -> pd.DataFrame:
    """A CSV with at least these columns; all but those that are called texts hold numbers.

    Raises:
        ValueError: the file is damaged or lacks one.
    """
    try:
        table = pd.read_csv(path)
    except (pd.errors.ParserError, pd.errors.EmptyDataError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no table: {error}") from error
    lacking = [name for name in columns if name not in table]
    if lacking:
        raise ValueError(f"{path} lacks the columns {', '.join(lacking)}.")

    for name in table.columns:
        is_number = pd.api.types.is_numeric_dtype(table[name])
        if name not in TEXTS and len(table) and not is_number:
            raise ValueError(f"{path} is damaged: its column {name} holds more than numbers.")
        if name in COUNTS and len(table) and not np.isfinite(table[name]).all():
            raise ValueError(f"{path} is damaged: its column {name} lacks a number.")
    return table
