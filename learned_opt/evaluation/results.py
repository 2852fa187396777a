"""What an evaluation came to, in memory and in ``evaluation.json``.

One row schema for every evaluation: that which ends a training, that of one theta, and that of
many thetas on many tasks. A row is an optimizer on a setting (task, horizon, point of a card)
with a held-out seed.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from learned_opt.core.files import write_json
from learned_opt.core.json_files import read_json
from learned_opt.evaluation import results_schema
from learned_opt.evaluation.curves import Curves

FORMAT = 2  # of evaluation.json; 1 was a list of rows with another definition of steps to target
SETTING = ["task", "horizon", "axis", "point"]
# columns of a row; whatever else a frame has are figures on held-out data
COLUMNS = [
    *SETTING,
    "optimizer",
    "seed",
    "start",
    "learning_rate",
    "ms_per_step",
    "mean_loss",
    "final_loss",
    "min_loss",
    "initial_loss",
    "diverged",
    "finite_steps",
    "target_loss",
    "steps_to_target",
    "seconds_to_target",
    "speedup",
    "time_speedup",
    "loss_ratio",
    "target_test_loss",
    "steps_to_test_loss",
    "test_speedup",
]
LOSSES = ("mean_loss", "final_loss", "min_loss")  # infinite where a run diverged
STEPS_TO_TEST_LOSS = "steps_to_test_loss"
TEST_SPEEDUP = "test_speedup"
LATE = ("steps_to_target", "seconds_to_target")  # infinite where a run never got there


class MetaTraining(NamedTuple):
    """What a row is one of several meta-trainings of.

    Args:
        optimizer: name of the optimizer, which several rows share.
        seed: root of the random numbers of this meta-training.
    """

    optimizer: str
    seed: int


@dataclass
class Results:
    """What an evaluation came to; filled setting by setting.

    Args:
        reference: the baseline whose final loss is the target; empty where no baseline was run.
        learned: names of the learned optimizers, the one that was asked about first.
        facts: command, versions and machine of the run.
        frames: a table of every setting, see ``scores.rows``.
        curves: (task, horizon) -> optimizer -> training losses ``(T, M)``, of the tasks themselves.
        left_out: cells that could not be, with the reason.
        budgets: a row for every cell: what was tuned, how long it took.
        origins: a row for every learned optimizer and task: whether meta-training has seen it.
        warnings: sentences that a reader of the numbers must know.
        described: task -> its description.
        num_cells: cells that were run or read.
        reused: how many of them were there already.
        meta_trainings: by row name, of rows that are one of several of an optimizer.
    """

    reference: str = ""
    learned: list[str] = field(default_factory=list)
    facts: dict[str, str] = field(default_factory=dict)
    frames: list[pd.DataFrame] = field(default_factory=list)
    curves: Curves = field(default_factory=dict)
    left_out: list[dict[str, Any]] = field(default_factory=list)
    budgets: list[dict[str, Any]] = field(default_factory=list)
    origins: list[dict[str, Any]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    described: dict[str, dict[str, Any]] = field(default_factory=dict)
    num_cells: int = 0
    reused: int = 0
    meta_trainings: dict[str, MetaTraining] = field(default_factory=dict)

    @property
    def frame(self) -> pd.DataFrame:
        """One row per task, horizon, point of the card, optimizer and seed."""
        if not self.frames:
            return pd.DataFrame(columns=COLUMNS)
        return pd.concat(self.frames, ignore_index=True)

    def warn(self, sentence: str) -> None:
        """Keep a sentence for the reader, once."""
        if sentence and sentence not in self.warnings:
            self.warnings.append(sentence)


def heldout_figures(frame: pd.DataFrame) -> list[str]:
    """Names of the figures on held-out data that a frame has values of."""
    names = [name for name in frame.columns if name not in COLUMNS]
    return [name for name in names if bool(frame[name].notna().any())]


def write_evaluation(path: Path, results: Results) -> None:
    """Write ``evaluation.json``: strict JSON, in which what is not finite is null.

    Args:
        path: the file.
        results: all but the curves are written.
    """
    content = {
        "format": FORMAT,
        "reference": results.reference,
        "learned": results.learned,
        "tasks": results.described,
        "warnings": results.warnings,
        "left_out": results.left_out,
        "budgets": results.budgets,
        "origins": results.origins,
        "facts": results.facts,
        "meta_trainings": results.meta_trainings,
        "rows": _json_rows(results.frame),
    }
    write_json(path, jsonable(content))


def _json_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    heldout = [name for name in frame.columns if name not in COLUMNS]
    rows = []
    for values in frame.to_dict("records"):
        row = {name: values[name] for name in COLUMNS if name in values}
        row["heldout"] = {}
        for name in heldout:
            # a task has no such figure where all its rows lack it; NaN stands for that alone
            if not _is_nan(values[name]):
                row["heldout"][name] = values[name]

        rows.append(row)
    return rows


def read_evaluation(path: Path) -> Results:
    """Read ``evaluation.json``, also that of earlier versions, which had fewer figures.

    Raises:
        ValueError: the file is damaged, or not one of ours.
    """
    content = read_json(path)
    if isinstance(content, list):
        return _earlier(path, content)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        version = content.get("format") if isinstance(content, dict) else None
        raise ValueError(f"{path} has format {version!r}, this version reads {FORMAT} and 1.")

    try:
        results_schema.check(content)
        frame = _frame(content["rows"])
        trainings = {}
        for row, training in content.get("meta_trainings", {}).items():
            trainings[row] = MetaTraining(training["optimizer"], training["seed"])
        return Results(
            reference=content["reference"],
            learned=list(content["learned"]),
            facts=dict(content["facts"]),
            frames=[frame],
            left_out=content["left_out"],
            budgets=content["budgets"],
            origins=content["origins"],
            warnings=content["warnings"],
            described=content["tasks"],
            meta_trainings=trainings,
        )
    except ValueError as error:
        raise ValueError(f"{path} is damaged or not of an evaluation: {error}.") from error


EARLIER_COLUMNS = {"task", "optimizer", "seed", "horizon", "mean_loss", "final_loss", "ms_per_step"}
EARLIER = (
    "these results are of a version before 0.2, which counted steps to the best baseline's mean "
    "final loss: they are left out here"
)


def _earlier(path: Path, rows: list[Any]) -> Results:
    """Results of format 1, whose steps to target were another figure."""
    valid = [isinstance(row, dict) and row.keys() >= EARLIER_COLUMNS for row in rows]
    if not rows or not all(valid):
        wanted = ", ".join(sorted(EARLIER_COLUMNS))
        raise ValueError(f"{path} is not ours: it must be a list of rows with {wanted}.")

    converted = []
    for row in rows:
        heldout = row.get("heldout", {})
        if not isinstance(heldout, dict):
            raise ValueError(f"{path} is not ours: heldout of a row must be an object.")
        if row.get("accuracy") is not None:
            heldout = {"accuracy": row["accuracy"], **heldout}

        kept = {name: row.get(name) for name in (*EARLIER_COLUMNS, "learning_rate")}
        diverged = row["mean_loss"] is None
        of_task = {"axis": "", "point": ""}
        converted.append({**kept, **of_task, "diverged": diverged, "heldout": heldout})

    try:
        results_schema.check_results(converted)
    except ValueError as error:
        raise ValueError(f"{path} is damaged or not of an evaluation: {error}.") from error
    learned = [rows[0]["optimizer"]]
    return Results(learned=learned, frames=[_frame(converted)], warnings=[EARLIER])


def _frame(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """A tidy table from the rows of a file; null becomes infinity or NaN, as the figure has it."""
    # columns of runs whose test loss was measured on their way, which few are
    lacking = {"target_test_loss", STEPS_TO_TEST_LOSS, TEST_SPEEDUP}
    if any(STEPS_TO_TEST_LOSS in row for row in rows):
        lacking = set()
    names = [name for name in COLUMNS if name not in lacking]

    flat = []
    for row in rows:
        heldout = {name: _or(value, math.inf) for name, value in row["heldout"].items()}
        values = {name: row.get(name) for name in names}
        for name in LOSSES:
            values[name] = _or(values[name], math.inf)

        # null is NaN where there was no target, else a target that was never reached
        never = math.nan if values["target_loss"] is None else math.inf
        for name in LATE:
            values[name] = _or(values[name], never)
        if STEPS_TO_TEST_LOSS in values:
            never = math.nan if values["target_test_loss"] is None else math.inf
            values[STEPS_TO_TEST_LOSS] = _or(values[STEPS_TO_TEST_LOSS], never)
        flat.append({**values, **heldout})

    frame = pd.DataFrame(flat, columns=None if flat else COLUMNS)
    for name in frame.columns:
        if name not in ("task", "axis", "point", "optimizer", "start", "diverged"):
            frame[name] = pd.to_numeric(frame[name])

    return frame


def _or(value: float | None, missing: float) -> float:
    return missing if value is None else value


def _is_nan(value: Any) -> bool:
    return isinstance(value, float) and math.isnan(value)


def jsonable(value: Any) -> Any:
    """Plain containers; numbers that are not finite become null."""
    if hasattr(value, "_asdict"):
        value = value._asdict()

    if isinstance(value, Mapping):
        return {str(key): jsonable(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [jsonable(part) for part in value]

    if hasattr(value, "item"):
        value = value.item()

    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
