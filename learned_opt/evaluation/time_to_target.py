"""Time-to-target scores, by AlgoPerf's rules, of any set of optimizers on any set of tasks.

Legend: S optimizers, W workloads (a task at a horizon), M seeds.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from learned_opt.evaluation.aggregate import expanded_tail
from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.intervals import Interval

FURTHEST = 4.0  # times as slow as the fastest: from there on a workload counts nothing
RESAMPLES = 2_000
COSTS = ("steps_to_target", "seconds_to_target")  # columns of a frame that can be scored

Times = NDArray[np.floating]
Workload = tuple[str, int]  # task and horizon


class Score(NamedTuple):
    """The score of one optimizer.

    Args:
        optimizer: its name.
        score: between 0 and 1, 1 for the fastest on every workload, with its 95% interval.
        reached: workloads on whose median seed it gets to the target.
        workloads: how many there are.
    """

    optimizer: str
    score: Interval
    reached: int
    workloads: int


def benchmark_scores(times: Times) -> Times:
    r"""AlgoPerf's score: the area below a performance profile, up to four times the best time.

    With the time :math:`t_{sw}` of optimizer s to the target of workload w, infinite where it never
    gets there, and :math:`r_{sw} = t_{sw} / \min_{s'} t_{s'w}`,

    .. math:: B_s = \frac{1}{4 - 1} \int_1^4 \frac{|\{w : r_{sw} \le \tau\}|}{W} d\tau
                  = \frac{1}{W} \sum_w \frac{\max(0, 4 - r_{sw})}{3}

    A score depends on which other optimizers are compared. A workload on which none gets to the
    target counts 0 for all.

    Args:
        times: ``(..., S, W)``, positive, infinite where never.

    Returns:
        Times: ``(..., S)``.

    Source: Dahl et al. 2023 (arXiv 2306.07179), section 4.3, whose code takes the integral by 100
    trapezoids.

    >>> benchmark_scores(np.array([[100, 50, np.inf], [150, 200, 30], [400, 49, 120.1]])).round(6)
    array([0.664399, 0.611111, 0.333333])
    """
    fastest = times.min(-2, keepdims=True)  # (..., 1, W)
    fastest = np.where(np.isfinite(fastest), fastest, 1.0)  # nobody gets there: inf / 1
    ratios = times / fastest  # (..., S, W)
    return np.maximum(0.0, FURTHEST - ratios).mean(-1) / (FURTHEST - 1)


def study_times(frame: pd.DataFrame, cost: str) -> dict[Workload, dict[str, Times]]:
    """The time of every optimizer to the target of every workload, on each of its seeds.

    Points of generalisation cards are no workloads. A seed without a target (its reference
    diverged) counts for nobody, and so does a workload without any.

    Args:
        frame: a row for each optimizer and seed of a setting, see ``scores.rows``.
        cost: a column, see ``COSTS``.

    Returns:
        dict[Workload, dict[str, Times]]: workload -> optimizer -> ``(M,)``, infinite where it was
        not run on the workload or never got there.
    """
    of_tasks = select(frame, axis="")
    names = distinct(of_tasks, "optimizer")
    workloads = {}
    for (task, horizon), rows in groups(of_tasks, ["task", "horizon"]):
        table = rows.pivot(index="seed", columns="optimizer", values=cost)
        table = table.loc[table.notna().any(axis=1)].reindex(columns=names)
        if len(table):
            filled = table.astype(float).fillna(math.inf)
            workloads[task, horizon] = {name: filled[name].to_numpy() for name in names}
    return workloads


def median_times(studies: dict[Workload, dict[str, Times]]) -> dict[str, Times]:
    """Optimizer -> its time on each workload ``(W,)``: the median over seeds.

    Args:
        studies: of ``study_times``.
    """
    names = list(next(iter(studies.values()), {}))
    medians = {}
    for name in names:
        medians[name] = np.array([np.median(times[name]) for times in studies.values()])
    return medians


def score_optimizers(frame: pd.DataFrame, cost: str) -> list[Score]:
    """The score of every optimizer of a frame, best first, with 95% intervals over seeds.

    A workload is a task at a horizon, and a study a held-out seed: the time of a workload is the
    median over its seeds, of which a run that never gets there is infinite. Intervals are of the
    bootstrap: seeds are drawn again within each workload, the same ones for all optimizers, whose
    runs are paired.

    Args:
        frame: a row for each optimizer and seed of a setting.
        cost: ``steps_to_target`` or ``seconds_to_target``.

    Returns:
        list[Score]: empty where no workload has a target, or no times were measured.
    """
    studies = study_times(frame, cost)
    if not studies:
        return []

    medians = median_times(studies)
    table = np.stack(list(medians.values()))  # (S, W)
    points = benchmark_scores(table)
    resampled = benchmark_scores(_resampled_times(studies))  # (R, S)
    tail = expanded_tail([len(next(iter(times.values()))) for times in studies.values()])
    lows = np.quantile(resampled, tail, axis=0)
    highs = np.quantile(resampled, 1 - tail, axis=0)

    scores = []
    for i, name in enumerate(medians):
        interval = Interval(float(points[i]), float(lows[i]), float(highs[i]))
        reached = int(np.isfinite(table[i]).sum())
        scores.append(Score(name, interval, reached, len(studies)))
    return sorted(scores, key=lambda score: -score.score.mean)


def _resampled_times(studies: dict[Workload, dict[str, Times]]) -> Times:
    """Medians over seeds that are drawn again, ``(RESAMPLES, S, W)``."""
    source = np.random.default_rng(0)
    columns = []
    for times in studies.values():
        values = np.stack(list(times.values()))  # (S, M)
        num_seeds = values.shape[1]
        index = source.integers(num_seeds, size=(RESAMPLES, num_seeds))
        columns.append(np.median(values[:, index], axis=-1).T)  # (RESAMPLES, S)
    return np.stack(columns, -1)
