"""The table of optimizers x settings, from the files of finished evaluations alone."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from learned_opt.evaluation.intervals import bootstrap_mean, paired_difference
from learned_opt.reporting.tables import markdown_table

COLUMNS = ["setting", "horizon", "optimizer", "seed", "final_loss"]
BEST_OTHER = "best other"
NOTES = """\
Final training loss (mean over the last 10 inner steps), mean over held-out seeds with a 95% bootstrap interval.
**Best** of the column; _level_ with it: the 95% interval of the paired difference holds 0."""


def read(folder: Path) -> pd.DataFrame:
    """Final losses of a run folder: of a suite (``results.parquet``), or of a training or a page (``evaluation.json``).

    Raises:
        ValueError: the folder holds neither, or files that cannot be read.
    """
    try:
        if (folder / "results.parquet").is_file():
            return _of_suite(folder)
        if (folder / "evaluation.json").is_file():
            return _of_page(folder)
    except (OSError, KeyError, json.JSONDecodeError) as error:
        raise ValueError(f"the results in {folder} cannot be read: {error}.") from error
    raise ValueError(
        f"{folder} holds no results of an evaluation (results.parquet or evaluation.json)."
    )


def _of_suite(folder: Path) -> pd.DataFrame:
    frame: Any = pd.read_parquet(folder / "results.parquet")
    tasks = json.loads((folder / "summary.json").read_text())["tasks"]
    own = frame[frame["axis"] == ""]
    return own.assign(setting=[_label(task, tasks) for task in own["task"]])[COLUMNS]


def _of_page(folder: Path) -> pd.DataFrame:
    frame: Any = pd.DataFrame(json.loads((folder / "evaluation.json").read_text()))
    tasks = json.loads((folder / "theta.json").read_text())["tasks"]
    frame["final_loss"] = frame["final_loss"].astype(float).fillna(math.inf)
    return frame.assign(setting=[_label(task, tasks) for task in frame["task"]])[COLUMNS]


def _label(task: str, tasks: dict) -> str:
    data = tasks[task].get("data")
    return f"{task}, {data}" if data else task


def table(folders: Sequence[Path], shown: Sequence[str] = ()) -> str:
    """A markdown table, a row for each optimizer and a column for each setting.

    Args:
        folders: run folders; what occurs in several must be the same in all.
        shown: optimizers to show, in this order; the best of all others gets one more row. Empty for every one.

    Raises:
        ValueError: no folder is given, one holds no results, two disagree, or nothing is called as one to show.
    """
    if not folders:
        raise ValueError(
            "name at least one run folder: python -m learned_opt evaluate table FOLDER..."
        )
    every = pd.concat([read(folder).assign(folder=str(folder)) for folder in folders])
    if every.empty:
        raise ValueError(
            f"{', '.join(map(str, folders))} hold no results of a task, only of its card."
        )
    _check_agreement(every)
    every = every.drop_duplicates(COLUMNS[:4])
    optimizers = list(dict.fromkeys(every["optimizer"]))
    if unknown := [name for name in shown if name not in optimizers]:
        raise ValueError(f"rows must be among {', '.join(optimizers)}, got {', '.join(unknown)}.")
    columns = {}
    groups: Any = every.groupby(["setting", "horizon"], sort=False)
    for (setting, horizon), own in groups:
        losses = {
            str(name): of.sort_values("seed")["final_loss"].tolist()
            for name, of in own.groupby("optimizer")
        }
        columns[f"{setting}, {horizon} steps, {max(map(len, losses.values()))} seeds"] = _column(
            losses, shown
        )
    names = [*shown, BEST_OTHER] if shown else optimizers
    rows = [[name, *(column.get(name, "-") for column in columns.values())] for name in names]
    return f"{markdown_table(('optimizer', *columns), rows)}\n\n{NOTES}"


def _column(losses: Mapping[str, list[float]], shown: Sequence[str]) -> dict[str, str]:
    """The cells of a setting by optimizer."""
    means = {name: sum(own) / len(own) for name, own in losses.items()}
    best = min(means, key=lambda name: means[name])
    cells = {name: _cell(own, losses[best], name == best) for name, own in losses.items()}
    others = [name for name in losses if name not in shown]
    if shown and others:
        other = min(others, key=lambda name: means[name])
        cells[BEST_OTHER] = f"{cells[other]} {other}"
    return cells


def _check_agreement(every: pd.DataFrame) -> None:
    groups: Any = every.groupby(COLUMNS[:4], sort=False)
    for (setting, horizon, optimizer, seed), own in groups:
        if own["final_loss"].nunique() > 1:
            where = f"{optimizer} on {setting}, {horizon} steps, seed {seed}"
            raise ValueError(
                f"{' and '.join(own['folder'].unique())} disagree on {where}; leave one of them out."
            )


def _cell(losses: list[float], best: list[float], is_best: bool) -> str:
    diverged = sum(not math.isfinite(loss) for loss in losses)
    if diverged:
        return f"diverged {diverged}/{len(losses)}"
    own = bootstrap_mean(losses)
    text = f"{own.mean:.4f} [{own.low:.4f}, {own.high:.4f}]"
    if is_best:
        return f"**{text}**"
    level = len(losses) == len(best) and paired_difference(losses, best).low <= 0
    return f"_{text}_" if level else text
