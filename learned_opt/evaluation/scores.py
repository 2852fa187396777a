"""From cells to rows, and from rows to figures: the one definition of each.

Legend: M seeds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from learned_opt.evaluation.aggregate import iqm, stratified_iqm
from learned_opt.evaluation.cells import TEST_LOSSES, Cell
from learned_opt.evaluation.frames import distinct, groups, select
from learned_opt.evaluation.intervals import Interval, mean_interval, paired_difference
from learned_opt.evaluation.results import (
    COLUMNS,
    LOSSES,
    SETTING,
    STEPS_TO_TEST_LOSS,
    TEST_SPEEDUP,
    heldout_figures,
)

RATIOS = ("speedup", "time_speedup", "loss_ratio")  # over all tasks and horizons


def reference_row(names: Sequence[str], reference: str) -> str:
    """The row of the reference that is best at the final loss; empty where it was not run.

    A baseline that is tuned for both losses has a row of its own for the final loss where another
    learning rate is best for it.

    >>> reference_row(["unf", "adam", "adam-final"], "adam")
    'adam-final'
    """
    for name in (f"{reference}-final", reference):
        if name in names:
            return name
    return ""


def rows(
    setting: Mapping[str, Any],
    cells: Mapping[str, Cell],
    reference: str,
    times: Mapping[str, float],
    target_loss: float | None = None,
) -> pd.DataFrame:
    """One row per optimizer and seed of a setting.

    The target of a seed is the final loss of the reference on that very seed, unless one is fixed.
    ``speedup`` is the reference's steps to it over the optimizer's, 0 where it never gets there;
    NaN where the reference never does or was not run. ``test_speedup`` is the same for the lowest
    test loss of the reference on that seed.

    Args:
        setting: task, horizon, axis and point.
        cells: row name -> cell.
        reference: row of the baseline that is compared with; empty where there is none.
        times: optimizer -> milliseconds per inner step; may be empty.
        target_loss: target of all seeds; None for the reference's final losses.
    """
    target = _target(cells, reference, target_loss)  # (M,)
    valid = target.isfinite()
    reference_steps = torch.full_like(target, math.inf)
    if reference:
        reference_steps = _steps(cells[reference], target).where(valid, math.inf)
    reference_ms = _time_of(reference, times)
    test_target = _test_target(cells, reference)  # (M,)

    frames = []
    for name, cell in cells.items():
        milliseconds = _time_of(name, times)
        reached = _steps(cell, target)  # (M,)
        steps = reached.where(valid, math.nan)
        speedup = _speedup(reference_steps, reached)
        final_loss = torch.tensor(cell.table["final_loss"].to_numpy())
        # losses may be negative, and have no ratio then
        ratio = (final_loss / target).where(valid & (target > 0), math.nan)

        curves = [column for column in ("losses", TEST_LOSSES) if column in cell.table]
        frame = cell.table.drop(columns=curves).assign(optimizer=name, **setting)
        frame["learning_rate"] = cell.tuning["learning_rate"] if cell.tuning else math.nan
        frame["ms_per_step"] = milliseconds
        frame["target_loss"] = target.where(valid, math.nan).numpy()
        frame["steps_to_target"] = steps.numpy()
        frame["seconds_to_target"] = steps.numpy() * milliseconds / 1e3
        frame["speedup"] = speedup.numpy()
        frame["time_speedup"] = speedup.numpy() * reference_ms / milliseconds
        frame["loss_ratio"] = ratio.numpy()
        if test_target is not None:
            frame["target_test_loss"] = test_target.numpy()
            reached = cell.steps_to_test_loss(test_target)
            frame[STEPS_TO_TEST_LOSS] = reached.where(test_target.isfinite(), math.nan).numpy()
            best_of_reference = cells[reference].steps_to_test_loss(test_target)
            frame[TEST_SPEEDUP] = _speedup(best_of_reference, reached).numpy()
        known = [column for column in COLUMNS if column in frame]
        frames.append(frame[[*known, *(column for column in frame if column not in COLUMNS)]])

    return pd.concat(frames, ignore_index=True)


def _target(cells: Mapping[str, Cell], reference: str, target_loss: float | None) -> Tensor:
    """The training loss that each seed is to reach ``(M,)``, not finite where there is none."""
    if target_loss is None and reference:
        return cells[reference].runs.final_loss
    num_seeds = len(next(iter(cells.values())).table)
    value = math.inf if target_loss is None else target_loss
    return torch.full((num_seeds,), value, dtype=torch.float64)


def _speedup(reference_steps: Tensor, steps: Tensor) -> Tensor:
    """How many times as fast as the reference ``(M,)``; NaN where that never gets there."""
    return (reference_steps / steps).where(reference_steps.isfinite(), math.nan)


def _test_target(cells: Mapping[str, Cell], reference: str) -> Tensor | None:
    """The best test loss of the reference on each seed ``(M,)``, NaN where it has none.

    None where there is no reference, or test losses were measured at the end alone.
    """
    if not reference or any(cell.test_losses is None for cell in cells.values()):
        return None
    losses = cells[reference].test_losses
    assert losses is not None, "of no cell"
    best = losses.nan_to_num(nan=math.inf).amin(0)
    return best.where(best.isfinite(), math.nan)


def _time_of(row_name: str, times: Mapping[str, float]) -> float:
    """A step of a baseline takes as long at another learning rate."""
    optimizer, _, criterion = row_name.rpartition("-")
    if row_name not in times and criterion in ("final", "mean", "test"):
        return times.get(optimizer, math.nan)
    return times.get(row_name, math.nan)


def _steps(cell: Cell, target: Tensor) -> Tensor:
    """Steps to the targets ``(M,)``, infinite where never."""
    steps = [math.inf if step is None else step for step in cell.runs.steps_to(target)]
    return torch.tensor(steps, dtype=torch.float64)


def summarise(frame: pd.DataFrame, reference: str) -> list[dict[str, Any]]:
    """Figures of every optimizer at every setting, best final loss first within a setting.

    Args:
        frame: one row per optimizer and seed.
        reference: the baseline that ``behind`` and ``ahead`` are about: whether the paired
            difference in final loss from it has a 95% interval above or below 0.
    """
    summaries = []
    for setting, rows_of_setting in groups(frame, SETTING):
        rival_name = reference_row(distinct(rows_of_setting, "optimizer"), reference)
        rival = select(rows_of_setting, optimizer=rival_name)["final_loss"].tolist()
        columns = dict(zip(SETTING, setting, strict=True))

        group = []
        for (name,), rows_of_optimizer in groups(rows_of_setting, ["optimizer"]):
            group.append({**columns, **_summary(name, rows_of_optimizer, rival)})

        group.sort(key=lambda summary: summary["final_loss"].mean)
        summaries += group

    return summaries


def _summary(name: str, frame: Any, rival: list[float]) -> dict[str, Any]:
    """Figures of one optimizer at one setting.

    Args:
        name: the optimizer.
        frame: its rows, one for each seed.
        rival: final losses of the reference on the same seeds; empty where it was not run.
    """
    difference = Interval(0.0, 0.0, 0.0)
    if rival:
        difference = paired_or_diverged(frame["final_loss"].tolist(), rival)

    heldout = {}
    for figure in heldout_figures(frame):
        values = frame[figure].tolist()
        heldout[figure] = mean_interval(values)

    # NaN where the reference diverged and there is no target; a run that never gets to its target
    # takes infinitely many steps, so that the median is that of all runs and not of the good ones
    steps = frame["steps_to_target"].dropna()
    losses = {name: mean_interval(frame[name].tolist()) for name in LOSSES}
    to_test_loss: dict[str, Any] = {}
    if STEPS_TO_TEST_LOSS in frame and bool(frame[STEPS_TO_TEST_LOSS].notna().any()):
        to_test_loss[STEPS_TO_TEST_LOSS] = float(frame[STEPS_TO_TEST_LOSS].dropna().median())
        to_test_loss[TEST_SPEEDUP] = _ratio([frame[TEST_SPEEDUP]])

    return {
        "optimizer": name,
        "num_seeds": len(frame),
        "diverged": sum(map(bool, frame["diverged"])),
        **losses,
        **to_test_loss,
        "final_loss_iqm": iqm(frame["final_loss"]),
        "accuracy": heldout.get("accuracy"),
        "heldout": heldout,
        "reached": int(np.isfinite(steps).sum()),
        "with_target": len(steps),
        "steps_to_target": float(np.median(steps)) if len(steps) else math.nan,
        "speedup": _ratio([frame["speedup"]]),
        "time_speedup": _ratio([frame["time_speedup"]]),
        "behind": difference.low > 0,
        "ahead": difference.high < 0,
        "learning_rate": frame["learning_rate"].iloc[0],
        "ms_per_step": frame["ms_per_step"].iloc[0],
    }


def paired_or_diverged(left: list[float], right: list[float]) -> Interval:
    """Paired difference of losses over seeds.

    A run that diverged makes its side infinitely worse; where both sides have one they are level.
    """
    left_finite = math.isfinite(sum(left))
    right_finite = math.isfinite(sum(right))
    if left_finite and right_finite:
        return paired_difference(left, right)

    if left_finite == right_finite:
        gap = 0.0
    else:
        gap = -math.inf if left_finite else math.inf
    return Interval(gap, gap, gap)


def _ratio(strata: list[Any]) -> Interval | None:
    values = [stratum.dropna().tolist() for stratum in strata]
    return stratified_iqm(values) if any(values) else None


def aggregate(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Interquartile means over tasks, horizons and seeds, best speed-up first.

    Intervals are of the stratified bootstrap.
    """
    of_tasks = select(frame, axis="")
    num_settings = len(groups(of_tasks, ["task", "horizon"]))

    overall = []
    for (name,), rows_of_optimizer in groups(of_tasks, ["optimizer"]):
        strata = [stratum for _, stratum in groups(rows_of_optimizer, ["task", "horizon"])]
        ratios = {}
        for ratio in RATIOS:
            ratios[ratio] = _ratio([stratum[ratio] for stratum in strata])
        if TEST_SPEEDUP in of_tasks:
            ratios[TEST_SPEEDUP] = _ratio([stratum[TEST_SPEEDUP] for stratum in strata])

        counts = {
            "settings": len(strata),
            "of": num_settings,
            "runs": len(rows_of_optimizer),
            "diverged": sum(map(bool, rows_of_optimizer["diverged"])),
        }
        overall.append({"optimizer": name, **counts, **ratios})

    def slowness(row: dict[str, Any]) -> float:
        return -row["speedup"].mean if row["speedup"] else 0.0

    return sorted(overall, key=slowness)


def costs(frame: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """Optimizer -> its cost of every (task, horizon, seed).

    Infinite where it has no such run or never got there. A seed without a target counts for nobody.
    """
    of_tasks = select(frame, axis="")
    keys = ["task", "horizon", "seed"]
    table = of_tasks.pivot(index=keys, columns="optimizer", values=column)
    has_target = table.notna().any(axis=1)
    table = table.loc[has_target].fillna(np.inf)
    return {name: table[name].to_numpy() for name in distinct(of_tasks, "optimizer")}


def losses(frame: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Optimizer -> task and horizon -> final loss of each seed."""
    of_tasks = select(frame, axis="")
    losses_of: dict[str, dict[str, list[float]]] = {}
    for (name, task, horizon), stratum in groups(of_tasks, ["optimizer", "task", "horizon"]):
        losses_of.setdefault(name, {})[f"{task}, {horizon}"] = stratum["final_loss"].tolist()
    return losses_of
