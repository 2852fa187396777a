"""Optimizers over several meta-trainings that differ in their seed only: figures and verdicts."""

import math
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import pandas as pd

from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.intervals import Interval
from learned_opt.evaluation.meta_seed_intervals import (
    ByMetaSeed,
    two_level_difference,
    two_level_interval,
)
from learned_opt.evaluation.results import (
    LOSSES,
    SETTING,
    STEPS_TO_TEST_LOSS,
    MetaTraining,
    heldout_figures,
)
from learned_opt.evaluation.scores import reference_row

FEWEST = 3  # meta-seeds with which one optimizer may be called better than another
ALONE = 0  # stands for the meta-seed of an optimizer that has none


MetaTrainings = Mapping[str, MetaTraining]  # by the name of the row


def summarise(
    frame: pd.DataFrame, trainings: MetaTrainings, reference: str
) -> list[dict[str, Any]]:
    """Figures of every optimizer with several meta-trainings at every setting, best first.

    Args:
        frame: one row per optimizer, meta-training and seed.
        trainings: by the names of rows.
        reference: the baseline that ``behind`` and ``ahead`` are about: whether the interval of
            the paired difference in final loss from it lies above or below 0.

    Returns:
        list[dict[str, Any]]: ``num_meta_seeds``, and else the keys of ``scores.summarise`` that
        are means with intervals.
    """
    summaries = []
    for setting, rows in groups(frame, SETTING):
        columns = dict(zip(SETTING, setting, strict=True))
        rival = reference_row(distinct(rows, "optimizer"), reference)
        group = []
        for name in optimizers(trainings):
            if values(rows, trainings, name, "final_loss"):
                summary = _summary(rows, trainings, name, rival)
                group.append({**columns, "optimizer": name, **summary})
        summaries += sorted(group, key=lambda summary: summary["final_loss"].mean)
    return summaries


def _summary(rows: pd.DataFrame, trainings: MetaTrainings, name: str, rival: str) -> dict[str, Any]:
    by_seed = values(rows, trainings, name, "final_loss")
    difference = Interval(0.0, 0.0, 0.0)
    if rival:
        difference = two_level_difference(by_seed, values(rows, trainings, rival, "final_loss"))

    figures = {}
    for figure in (*LOSSES, *heldout_figures(rows)):
        of_figure = values(rows, trainings, name, figure)
        if not any(math.isnan(value) for row in of_figure.values() for value in row):
            figures[figure] = two_level_interval(of_figure)

    # infinite where never: a median is that of all runs
    if STEPS_TO_TEST_LOSS in rows and bool(rows[STEPS_TO_TEST_LOSS].notna().any()):
        steps = values(rows, trainings, name, STEPS_TO_TEST_LOSS)
        medians = []
        for row in steps.values():
            medians.append(median(step for step in row if not math.isnan(step)))
        figures[STEPS_TO_TEST_LOSS] = Interval(median(medians), min(medians), max(medians))

    diverged = values(rows, trainings, name, "diverged")
    return {
        "num_meta_seeds": len(by_seed),
        "num_seeds": sum(map(len, by_seed.values())),
        "diverged": int(sum(map(sum, diverged.values()))),
        **figures,
        "behind": difference.low > 0,
        "ahead": difference.high < 0,
    }


def optimizers(trainings: MetaTrainings) -> list[str]:
    """The optimizers that have meta-trainings, each once."""
    return list(dict.fromkeys(training.optimizer for training in trainings.values()))


def values(
    rows: pd.DataFrame, trainings: MetaTrainings, name: str, figure: str
) -> dict[int, list[float]]:
    """Meta-seed -> a value for each held-out seed, in the order of the seeds.

    Args:
        rows: of one setting.
        trainings: by the names of rows.
        name: of an optimizer with meta-trainings, or of any other row.
        figure: a column.
    """
    by_seed = {}
    for row in distinct(rows, "optimizer"):
        training = trainings.get(row, MetaTraining(row, ALONE))
        if training.optimizer == name:
            of_row = select(rows, optimizer=row).sort_values("seed")
            by_seed[training.seed] = of_row[figure].astype(float).tolist()
    return by_seed


def verdicts(rows: pd.DataFrame, trainings: MetaTrainings, rivals: Sequence[str]) -> list[str]:
    """A sentence for each pair and loss: who is better, where that may be said.

    It is said of at least ``FEWEST`` meta-seeds on each side that is meta-trained, and of an
    interval of the paired difference that excludes 0.

    Args:
        rows: of one setting.
        trainings: by the names of rows.
        rivals: rows without a meta-seed that each optimizer is compared with, such as a baseline.
    """
    names = [name for name in optimizers(trainings) if values(rows, trainings, name, "seed")]
    pairs = [(name, rival) for name in names for rival in rivals]
    for i, name in enumerate(names):
        pairs += [(name, other) for other in names[i + 1 :]]

    sentences = []
    for figure in ("mean_loss", "final_loss"):
        for name, rival in pairs:
            left = values(rows, trainings, name, figure)
            right = values(rows, trainings, rival, figure)
            sentences.append(verdict(figure, (name, left), (rival, right)))
    return sentences


def verdict(figure: str, left: tuple[str, ByMetaSeed], right: tuple[str, ByMetaSeed]) -> str:
    """Whether the first of two optimizers is better in a loss.

    Args:
        figure: name of the loss.
        left: name, and meta-seed -> a value for each held-out seed.
        right: the same of the other one; a single meta-seed is that of a baseline.

    >>> values = {seed: [1.0, 1.1] for seed in range(3)}
    >>> verdict("final_loss", ("unf", values), ("adam", {0: [2.0, 2.1]}))
    'final loss: unf is better than adam, difference -1.0000 [-1.0000, -1.0000] (3 meta-seeds)'
    """
    name, of_name = left
    rival, of_rival = right
    difference = two_level_difference(of_name, of_rival)
    counted = [len(of_name)] if len(of_rival) == 1 else [len(of_name), len(of_rival)]
    shown = " and ".join(map(str, dict.fromkeys(counted)))

    excludes = difference.high < 0 or difference.low > 0
    word = "better than" if difference.high < 0 else "worse than"
    if not excludes:
        word = "level with"
    elif min(counted) < FEWEST:
        word = "not told apart from"

    label = figure.replace("_", " ")
    gap = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
    enough = f"; {FEWEST} are needed" if word == "not told apart from" else ""
    return f"{label}: {name} is {word} {rival}, difference {gap} ({shown} meta-seeds{enough})"
