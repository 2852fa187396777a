"""Optimizers over several meta-trainings: a row for each, and who is better than whom."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from learned_opt.core.figures import figure
from learned_opt.evaluation import meta_seeds
from learned_opt.evaluation.frames import distinct, select
from learned_opt.evaluation.results import LOSSES, SETTING, STEPS_TO_TEST_LOSS, Results
from learned_opt.evaluation.scores import reference_row
from learned_opt.reporting import numbers
from learned_opt.reporting.tables import Table

NOTES = f"""\
Means over meta-trainings that differ in their seed only, and over held-out seeds. Brackets: 95%
intervals over both (meta-seeds drawn first, then held-out seeds, as wide as Student's t of few
meta-seeds asks for). Better or worse is said with at least {meta_seeds.FEWEST} meta-seeds and an
interval of the paired difference that excludes 0. Steps to the reference's best test loss: the
median over held-out seeds of each meta-seed, of these the median, the lowest and the highest; the
target of a seed is the lowest test loss that the reference, tuned, has on it at a measured step."""
NO_FIGURES = (*SETTING, "optimizer", "num_meta_seeds", "num_seeds", "diverged", "behind", "ahead")


def meta_seed_table(summaries: Sequence[Mapping[str, Any]], *, brief: bool = False) -> Table:
    """The optimizers of one setting, a row for each.

    Args:
        summaries: of ``meta_seeds.summarise``.
        brief: half widths in place of intervals.
    """
    names = [name for name in LOSSES if name != "min_loss"]
    names += [name for name in summaries[0] if name not in (*NO_FIGURES, *LOSSES)]
    headings = ["optimizer", "meta-seeds", *(figure(name).label for name in names), "diverged"]

    rows = []
    for summary in summaries:
        cells = []
        for name in names:
            if name == STEPS_TO_TEST_LOSS:
                cells.append(_steps(summary))
                continue
            digits = figure(name).digits
            cells.append(numbers.interval(summary.get(name), digits, brief=brief))
        diverged = f"{summary['diverged']}/{summary['num_seeds']}"
        rows.append([summary["optimizer"], str(summary["num_meta_seeds"]), *cells, diverged])
    return Table(headings, rows)


def _steps(summary: Mapping[str, Any]) -> str:
    """The median of medians, and the lowest and the highest meta-seed."""
    interval = summary.get(STEPS_TO_TEST_LOSS)
    if interval is None:
        return numbers.ABSENT
    texts = []
    for steps in interval:
        texts.append(f"{steps:.0f}" if math.isfinite(steps) else f">{summary['horizon']}")
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def of_setting(results: Results, task: str, horizon: int) -> tuple[list[dict[str, Any]], list[str]]:
    """Summaries and sentences of the optimizers with several meta-trainings on a task.

    Args:
        results: of the evaluation.
        task: its name.
        horizon: inner steps.

    Returns:
        tuple[list[dict[str, Any]], list[str]]: both empty where no optimizer has several.
    """
    if not results.meta_trainings:
        return [], []

    rows = select(results.frame, task=task, horizon=horizon, axis="")
    summaries = meta_seeds.summarise(rows, results.meta_trainings, results.reference)
    rival = reference_row(distinct(rows, "optimizer"), results.reference)
    others = [name for name in results.learned if name not in results.meta_trainings]
    rivals = [name for name in (rival, *others) if name]
    return summaries, meta_seeds.verdicts(rows, results.meta_trainings, rivals)
