"""Time-to-target scores as a table, and the performance profiles that they sum up."""

from collections.abc import Sequence
from typing import Any

import pandas as pd

from learned_opt.core.figures import figure
from learned_opt.evaluation import scores, time_to_target
from learned_opt.evaluation.aggregate import profile
from learned_opt.evaluation.frames import distinct
from learned_opt.evaluation.intervals import Interval
from learned_opt.evaluation.results import TEST_SPEEDUP
from learned_opt.reporting import evaluation_plots, numbers
from learned_opt.reporting.sections import Drawing, Drawings, Part, Rows
from learned_opt.reporting.tables import Table

HEADING = "Time-to-target scores"
NOTES = """\
Scores by AlgoPerf's formula, on these tasks: no figure of its leaderboard. A workload is a task at
a horizon, its time the median over held-out seeds of the time to the target (infinite for a run
that never gets there), and the score is the mean over workloads of max(0, 4 - time / the best one's
time) / 3: 1 for the fastest everywhere, 0 for four times as slow. It depends on which optimizers
stand in the table. Wall-clock is steps times the measured time of a step. Brackets: 95% intervals,
seeds drawn again within each workload, the same for all optimizers."""
TEST_NOTES = """\
Speed-up to the best test loss: the reference's steps to the lowest test loss that it has at any
measured step, over the optimizer's steps to that loss on the same seed, 0 where it never gets
there; interquartile mean. It says nothing of training losses."""
PROFILES = (
    "Performance profiles: share of workloads on which an optimizer is at most so many times as "
    "slow as the fastest."
)
SCORE_OF = {"steps_to_target": "step_score", "seconds_to_target": "time_score"}  # by cost


def score_table(frame: pd.DataFrame, *, brief: bool = False) -> Table | None:
    """The score of every optimizer over all tasks and horizons, best over steps first.

    Args:
        frame: a row for each optimizer and seed of a setting.
        brief: half widths in place of intervals.

    Returns:
        Table | None: None where no run has a target, or there is one optimizer alone.
    """
    if len(distinct(frame, "optimizer")) < 2:
        return None
    by_cost = {}
    for cost in time_to_target.COSTS:
        by_cost[cost] = {row.optimizer: row for row in time_to_target.score_optimizers(frame, cost)}
    over_steps = by_cost["steps_to_target"]
    if not over_steps:
        return None

    speedups = _test_speedups(frame)
    rows = []
    for name, row in over_steps.items():
        cells = []
        for cost, of_optimizers in by_cost.items():
            score = of_optimizers[name].score if name in of_optimizers else None
            digits = figure(SCORE_OF[cost]).digits
            cells.append(numbers.interval(score, digits, brief=brief))
        if speedups:
            cells.append(numbers.interval(speedups.get(name), 2, brief=brief))
        rows.append([name, *cells, f"{row.reached}/{row.workloads}"])

    labels = [figure(SCORE_OF[cost]).label for cost in by_cost]
    if speedups:
        labels.append(figure(TEST_SPEEDUP).label)
    return Table(["optimizer", *labels, "workloads reached"], rows)


def notes(frame: pd.DataFrame) -> list[str]:
    """What the columns of ``score_table`` mean."""
    return [NOTES, TEST_NOTES] if _test_speedups(frame) else [NOTES]


def score_sections(frame: pd.DataFrame, lines: Sequence[str]) -> dict[str, list[Part]]:
    """The section of a report; none where nothing can be scored.

    Args:
        frame: a row for each optimizer and seed of a setting.
        lines: names of the optimizers that pictures show.
    """
    table = score_table(frame)
    if table is None:
        return {}

    parts: list[Part] = [Rows(table), *notes(frame)]
    if len(time_to_target.study_times(frame, "steps_to_target")) > 1:  # of one the table tells all
        parts.append(_profiles(frame, lines))
    return {HEADING: parts}


def _profiles(frame: pd.DataFrame, lines: Sequence[str]) -> Drawings:
    profiles = []
    for cost in time_to_target.COSTS:
        times = time_to_target.median_times(time_to_target.study_times(frame, cost))
        shares = profile(times, evaluation_plots.NEAR_RATIOS)
        kept = {name: shares[name] for name in lines if name in shares}
        if kept:
            profiles.append((figure(cost).label, kept))

    picture = evaluation_plots.profiles_figure(profiles, near=True)
    return Drawings([Drawing(picture, PROFILES, PROFILES, file="scores.png")])


def _test_speedups(frame: pd.DataFrame) -> dict[str, Interval]:
    """Optimizer -> speed-up to the reference's best test loss; empty where none was measured."""
    if TEST_SPEEDUP not in frame:
        return {}
    overall: list[dict[str, Any]] = scores.aggregate(frame)
    return {row["optimizer"]: row[TEST_SPEEDUP] for row in overall if row.get(TEST_SPEEDUP)}
