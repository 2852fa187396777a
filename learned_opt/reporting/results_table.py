"""The table of optimizers x settings, from the files of finished evaluations alone."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from learned_opt.evaluation.frames import distinct, groups
from learned_opt.evaluation.intervals import mean_interval, paired_difference
from learned_opt.reporting import numbers
from learned_opt.reporting.record import read_record
from learned_opt.reporting.run_report import descriptions_of
from learned_opt.reporting.tables import markdown_table
from learned_opt.runtime.run_folder import RunFolder

COLUMNS = ["setting", "horizon", "optimizer", "seed", "final_loss"]
BEST_OTHER = "best other"
NOTES = """\
Final training loss (mean over the last 10 inner steps), mean over held-out seeds with a 95%
interval (of these thetas: how much other meta-trainings would differ is not in it). **Best** of the
column; _level_ with it: the 95% interval of the paired difference holds 0."""


def read(folder: Path) -> pd.DataFrame:
    """Final losses of a run folder.

    Raises:
        ValueError: the folder holds no evaluation, or files that cannot be read.
    """
    return cast(pd.DataFrame, labelled_rows(folder)[COLUMNS])


def labelled_rows(folder: Path) -> pd.DataFrame:
    """Rows of the evaluation of a run folder, with ``setting``, which tells task and data.

    Raises:
        ValueError: the folder holds no evaluation, or files that cannot be read.
    """
    if not RunFolder(folder).evaluation.is_file():
        earlier = folder / "results.parquet"
        if earlier.is_file():
            raise ValueError(
                f"{folder} is of a version before 0.2 (results.parquet); give the command of that "
                "evaluation again, its cells are kept."
            )

        raise ValueError(f"{folder} holds no results of an evaluation (evaluation.json).")

    record = read_record(folder)
    descriptions = descriptions_of(record)
    frame = record.frame
    labels = [_label(task, descriptions.get(task, {})) for task in frame["task"]]

    return frame.assign(setting=labels)


def _label(task: str, description: Mapping[str, Any]) -> str:
    data = description.get("data")
    return f"{task}, {data}" if data else task


def table(folders: Sequence[Path], shown: Sequence[str] = ()) -> str:
    """A Markdown table, a row for each optimizer and a column for each setting.

    Args:
        folders: run folders; what occurs in several must be the same in all.
        shown: optimizers to show, in this order; the best of all others gets one more row.
            Empty for every one.

    Raises:
        ValueError: no folder is given, one holds no results, two disagree, or nothing is called as
            one to show.
    """
    if not folders:
        raise ValueError(
            "name at least one run folder: python -m learned_opt evaluate table FOLDER..."
        )

    losses = pd.concat([read(folder).assign(folder=str(folder)) for folder in folders])
    if losses.empty:
        names = ", ".join(map(str, folders))
        raise ValueError(f"{names} hold no results of a task, only of its card.")

    _check_agreement(losses)
    # they agree, so that any copy of a run will do
    losses = losses.drop_duplicates(COLUMNS[:4])

    optimizers = list(dict.fromkeys(losses["optimizer"]))
    unknown = [name for name in shown if name not in optimizers]
    if unknown:
        raise ValueError(f"rows must be among {', '.join(optimizers)}, got {', '.join(unknown)}.")

    columns = {}
    for (setting, horizon), rows in groups(losses, ["setting", "horizon"]):
        losses_of = {}
        for (name,), of_optimizer in groups(rows, ["optimizer"]):
            losses_of[str(name)] = of_optimizer.sort_values("seed")["final_loss"].tolist()

        num_seeds = max(map(len, losses_of.values()))
        heading = f"{setting}, {horizon} steps, {num_seeds} seeds"
        columns[heading] = _column(losses_of, shown)

    names = [*shown, BEST_OTHER] if shown else optimizers
    rows = []
    for name in names:
        cells = [column.get(name, numbers.ABSENT) for column in columns.values()]
        rows.append([name, *cells])

    return f"{markdown_table(('optimizer', *columns), rows)}\n\n{NOTES}"


def _column(losses: Mapping[str, list[float]], shown: Sequence[str]) -> dict[str, str]:
    """The cells of a setting by optimizer."""
    means = {name: sum(values) / len(values) for name, values in losses.items()}
    best = min(means, key=lambda name: means[name])

    cells = {}
    for name, values in losses.items():
        cells[name] = _cell(values, losses[best], name == best)

    others = [name for name in losses if name not in shown]
    if shown and others:
        other = min(others, key=lambda name: means[name])
        cells[BEST_OTHER] = f"{cells[other]} {other}"
    return cells


def _check_agreement(losses: pd.DataFrame) -> None:
    for (setting, horizon, optimizer, seed), rows in groups(losses, COLUMNS[:4]):
        if len(distinct(rows, "final_loss")) > 1:
            folders = " and ".join(distinct(rows, "folder"))
            raise ValueError(
                f"{folders} disagree on {optimizer} on {setting}, {horizon} steps, seed {seed}; "
                "leave one of them out."
            )


def _cell(losses: list[float], best: list[float], is_best: bool) -> str:
    diverged = int(np.isinf(losses).sum())
    if diverged:
        return f"diverged {diverged}/{len(losses)}"
    text = numbers.interval(mean_interval(losses))
    if is_best:
        return f"**{text}**"
    # differences are paired by seed, which needs equal numbers of seeds
    is_level = len(losses) == len(best) and paired_difference(losses, best).low <= 0
    return f"_{text}_" if is_level else text
