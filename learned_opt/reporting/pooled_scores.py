"""Time-to-target scores over the optimizers of several finished evaluations."""

from collections.abc import Sequence
from pathlib import Path
from typing import cast

import pandas as pd

from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.scores import reference_row
from learned_opt.reporting import score_tables
from learned_opt.reporting.record import read_record
from learned_opt.reporting.results_table import labelled_rows

RUN = ["task", "horizon", "optimizer", "seed"]
TIMES = (
    "Times of different folders are compared as multiples of the reference's step, which was timed "
    "beside the others in each of them."
)


def text(folders: Sequence[Path], shown: Sequence[str] = ()) -> str:
    """Markdown of the scores, or a sentence that says why there are none.

    Args:
        folders: run folders; what occurs in several counts once.
        shown: optimizers to compare; empty for every one.

    Raises:
        ValueError: a folder holds no evaluation, or files that cannot be read.
    """
    frame = pd.concat([_rows_of(folder) for folder in folders], ignore_index=True)
    frame = frame.drop_duplicates(RUN)
    if shown:
        frame = cast(pd.DataFrame, frame[frame["optimizer"].isin(shown)])

    disagreement = _disagreement(frame)
    if disagreement:
        return f"No time-to-target scores: {disagreement}."

    frame = _common_seeds(frame)
    table = score_tables.score_table(frame)
    if table is None:
        return (
            "No time-to-target scores: they need two optimizers or more and runs with a target, "
            "the final loss of a baseline or benchmark.target_loss."
        )
    notes = score_tables.notes(frame)
    if len(folders) > 1:
        notes.append(TIMES)
    return "\n\n".join([f"**{score_tables.HEADING}**", table.markdown, *notes])


def _rows_of(folder: Path) -> pd.DataFrame:
    """Rows of a folder, named by task and data, times in steps of the reference."""
    frame = labelled_rows(folder)
    frame = frame.assign(task=frame["setting"], folder=str(folder))
    results = read_record(folder).results
    reference = results.reference if results else ""

    parts = []
    for _, rows in groups(frame, ["task", "horizon"]):
        row_name = reference_row(distinct(rows, "optimizer"), reference)
        milliseconds = select(rows, optimizer=row_name)["ms_per_step"]
        # a step of the reference is the same work everywhere, a second is not
        unit = milliseconds.iloc[0] / 1e3 if len(milliseconds) else 1.0
        parts.append(rows.assign(seconds_to_target=rows["seconds_to_target"] / unit))
    return pd.concat(parts, ignore_index=True) if parts else frame


def _disagreement(frame: pd.DataFrame) -> str:
    """Which runs on one seed are to reach different targets; empty where none are."""
    for (task, horizon, seed), rows in groups(frame, ["task", "horizon", "seed"]):
        # NaN differs from itself
        targets = rows["target_loss"].fillna("none").tolist()
        if len(set(targets)) > 1:
            folders = " and ".join(distinct(rows, "folder"))
            return f"{folders} have different targets on {task}, {horizon} steps, seed {seed}"
    return ""


def _common_seeds(frame: pd.DataFrame) -> pd.DataFrame:
    """The rows on seeds that all optimizers of a workload have been run on."""
    parts = []
    for _, rows in groups(frame, ["task", "horizon"]):
        num_optimizers = len(distinct(rows, "optimizer"))
        for _, of_seed in groups(rows, ["seed"]):
            if len(of_seed) == num_optimizers:
                parts.append(of_seed)
    return pd.concat(parts, ignore_index=True) if parts else frame.iloc[:0]
