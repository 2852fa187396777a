"""The tables of an evaluation, from its summaries: one for pages, its short form for terminals."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from learned_opt.core.figures import figure
from learned_opt.evaluation.generalisation import Point
from learned_opt.evaluation.results import STEPS_TO_TEST_LOSS, TEST_SPEEDUP
from learned_opt.reporting import numbers
from learned_opt.reporting.tables import Table

Summary = Mapping[str, Any]  # of scores.summarise

# columns behind the optimizer's name
PAGE = (
    "mean_loss",
    "final_loss",
    "final_loss_iqm",
    "min_loss",
    "accuracy",
    "steps_to_target",
    "speedup",
    "seconds_to_target",
    "ms_per_step",
    "diverged",
    "learning_rate",
)
TERMINAL = (
    "mean_loss",
    "final_loss",
    "accuracy",
    "steps_to_target",
    "ms_per_step",
    "learning_rate",
)


def comparison_table(
    summaries: Sequence[Summary], columns: Sequence[str] = PAGE, *, brief: bool = False
) -> Table:
    """The optimizers of one setting, a row for each.

    Args:
        summaries: of the setting.
        columns: names of figures.
        brief: half widths in place of intervals.
    """
    headings = ["optimizer", *(figure(column).label for column in columns)]
    rows = []
    for summary in summaries:
        cells = [_cell(column, summary, brief) for column in columns]
        rows.append([summary["optimizer"], *cells])
    return Table(headings, rows)


def _cell(column: str, summary: Summary, brief: bool) -> str:
    if column in SPECIAL:
        return SPECIAL[column](summary)
    value = summary[column]
    digits = figure(column).digits
    if isinstance(value, float):
        return numbers.number(value, digits)
    return numbers.interval(value, digits, brief=brief)


def _steps(summary: Summary) -> str:
    reached = f"({summary['reached']}/{summary['with_target']})"
    steps = summary["steps_to_target"]
    if math.isnan(steps):
        return numbers.ABSENT
    if math.isinf(steps):
        return f">{summary['horizon']} {reached}"
    return f"{steps:.0f} {reached}"


def _seconds(summary: Summary) -> str:
    seconds = summary["steps_to_target"] * summary["ms_per_step"] / 1e3
    if math.isnan(seconds):
        return numbers.ABSENT
    return f"{seconds:.3f}" if math.isfinite(seconds) else "never"


def _milliseconds(summary: Summary) -> str:
    milliseconds = summary["ms_per_step"]
    return numbers.ABSENT if math.isnan(milliseconds) else numbers.number(milliseconds, 3)


def _diverged(summary: Summary) -> str:
    return f"{summary['diverged']}/{summary['num_seeds']}"


def _learning_rate(summary: Summary) -> str:
    return numbers.learning_rate(summary["learning_rate"])


SPECIAL: dict[str, Callable[[Summary], str]] = {  # figures that are no mean with an interval
    "steps_to_target": _steps,
    "seconds_to_target": _seconds,
    "ms_per_step": _milliseconds,
    "diverged": _diverged,
    "learning_rate": _learning_rate,
}


def heldout_table(summaries: Sequence[Summary]) -> Table | None:
    """Whatever else the task measures on held-out data after the last step; None where nothing."""
    names = dict.fromkeys(name for summary in summaries for name in summary["heldout"])
    names.pop("accuracy", None)  # stands in the table of the comparison
    measured = [summary for summary in summaries if STEPS_TO_TEST_LOSS in summary]
    if not names and not measured:
        return None

    rows = []
    for summary in summaries:
        intervals = [summary["heldout"].get(name) for name in names]
        cells = [*map(numbers.interval, intervals)]
        if measured:
            cells.append(_steps_to_test_loss(summary))
            cells.append(numbers.interval(summary.get(TEST_SPEEDUP), 2))
        rows.append([summary["optimizer"], *cells])

    labels = [figure(name).label for name in names]
    if measured:
        labels += [figure(name).label for name in (STEPS_TO_TEST_LOSS, TEST_SPEEDUP)]
    return Table(["optimizer", *labels], rows)


def _steps_to_test_loss(summary: Summary) -> str:
    """The median over seeds; a run that never gets there counts as infinite."""
    steps = summary.get(STEPS_TO_TEST_LOSS, math.nan)
    if math.isnan(steps):
        return numbers.ABSENT
    return f"{steps:.0f}" if math.isfinite(steps) else f">{summary['horizon']}"


RATIOS = ("speedup", "time_speedup", "loss_ratio")


def overall_table(overall: Sequence[Mapping[str, Any]]) -> Table:
    """All tasks and horizons together, a row for each optimizer.

    Args:
        overall: of ``scores.aggregate``.
    """
    labels = [figure(ratio).label for ratio in RATIOS]
    rows = []
    for row in overall:
        ratios = [numbers.interval(row[ratio], figure(ratio).digits) for ratio in RATIOS]
        settings = f"{row['settings']}/{row['of']}"
        diverged = f"{row['diverged']}/{row['runs']}"
        rows.append([row["optimizer"], *ratios, settings, diverged])
    return Table(["optimizer", *labels, "settings", "diverged"], rows)


def card_table(axes: Mapping[str, Mapping[str, Sequence[Point]]]) -> Table:
    """The generalisation card of one task.

    Args:
        axes: axis -> learned optimizer -> its points, see ``generalisation.card``.
    """
    learned = list(next(iter(axes.values())))
    rows = []
    for axis, points_of in axes.items():
        for points in zip(*points_of.values(), strict=True):
            rows.append([axis, points[0].point, *map(str, points)])
    return Table(["axis", "point", *learned], rows)


def budget_table(budgets: Sequence[Mapping[str, Any]]) -> Table:
    """What was tuned for each cell, and how long it took."""
    rows = []
    for budget in budgets:
        tuned = "nothing"
        chosen = numbers.ABSENT
        # learned optimizers and fixed baselines are not tuned
        if "tries" in budget:
            tuned = f"{budget['tries']} learning rates x {budget['seeds']} seeds"
            tuned = f"{tuned} for {budget['criterion']}"
            if budget["reused"]:
                kept = "of these runs were kept from an earlier tuning (benchmark.archive)"
                tuned = f"{tuned}; {budget['reused']} {kept}"

            rate = numbers.learning_rate(budget["learning_rate"])
            chosen = f"{rate}, {budget['diverged_tries']} tries diverged"

        seconds = [f"{budget[name]:.1f} s" for name in ("tuning_seconds", "run_seconds")]
        rows.append([budget["optimizer"], setting_name(budget), tuned, chosen, *seconds])

    return Table(["optimizer", "setting", "tuned", "chosen", "tuning", "runs"], rows)


def setting_name(row: Mapping[str, Any]) -> str:
    """Task, axis, point and horizon of a row, as sentences call them."""
    words = (row["task"], row["axis"], row["point"], f"horizon {row['horizon']}")
    return " ".join(filter(None, words))
