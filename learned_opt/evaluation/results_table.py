"""The table of settings x optimizers, from the files of finished evaluations alone."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from learned_opt.evaluation.metrics import bootstrap_mean, paired_difference
from learned_opt.evaluation.tables import markdown_table

COLUMNS = ["setting", "horizon", "optimizer", "seed", "final_loss"]
NOTES = """\
Final training loss (mean over the last 10 inner steps), mean over held-out seeds with a 95% bootstrap interval.
**Best** of the row; _level_ with it: the 95% interval of the paired difference holds 0."""


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
    raise ValueError(f"{folder} holds no results of an evaluation (results.parquet or evaluation.json).")


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


def table(folders: Sequence[Path]) -> str:
    """A markdown table, a row for each setting and a column for each optimizer.

    Args:
        folders: run folders; what occurs in several must be the same in all.

    Raises:
        ValueError: no folder is given, one holds no results, or two disagree.
    """
    if not folders:
        raise ValueError("name at least one run folder: python -m learned_opt.evaluate table FOLDER...")
    every = pd.concat([read(folder).assign(folder=str(folder)) for folder in folders])
    if every.empty:
        raise ValueError(f"{', '.join(map(str, folders))} hold no results of a task, only of its card.")
    _check_agreement(every)
    every = every.drop_duplicates(COLUMNS[:4])
    optimizers = list(dict.fromkeys(every["optimizer"]))
    rows = []
    groups: Any = every.groupby(["setting", "horizon"], sort=False)
    for (setting, horizon), own in groups:
        losses = {str(name): of.sort_values("seed")["final_loss"].tolist() for name, of in own.groupby("optimizer")}
        best = min(losses, key=lambda name: sum(losses[name]) / len(losses[name]))
        cells = [_cell(losses[name], losses[best], name == best) if name in losses else "-" for name in optimizers]
        rows.append([f"{setting}, {horizon} steps", str(max(map(len, losses.values()))), *cells])
    return f"{markdown_table(('setting', 'seeds', *optimizers), rows)}\n\n{NOTES}"


def _check_agreement(every: pd.DataFrame) -> None:
    groups: Any = every.groupby(COLUMNS[:4], sort=False)
    for (setting, horizon, optimizer, seed), own in groups:
        if own["final_loss"].nunique() > 1:
            where = f"{optimizer} on {setting}, {horizon} steps, seed {seed}"
            raise ValueError(f"{' and '.join(own['folder'].unique())} disagree on {where}; leave one of them out.")


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
