"""From cells to tidy rows, and from rows to figures for people.

Legend: M seeds.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
import torch

from learned_opt.evaluation.aggregate import iqm, stratified_iqm
from learned_opt.evaluation.cells import Cell
from learned_opt.evaluation.intervals import Interval, bootstrap_mean, paired_difference

WHERE = ["task", "horizon", "axis", "point"]
RATIOS = ("speedup", "time_speedup", "loss_ratio")


def rows(
    where: Mapping[str, Any], found: Mapping[str, Cell], reference: str, times: Mapping[str, float]
) -> pd.DataFrame:
    """One row per optimizer and seed of a setting.

    The target of a seed is the final loss of the reference on that very seed. ``speedup`` is the reference's steps to
    it over the optimizer's, 0 where it never gets there; NaN, as ``loss_ratio`` is, where the reference diverged.

    Args:
        where: task, horizon, axis and point.
        found: optimizer -> cell.
        reference: the tuned baseline that is compared with.
        times: optimizer -> milliseconds per inner step; may be empty.
    """
    target = found[reference].runs.final_loss
    valid = target.isfinite()
    reached = {name: _steps(cell, target) for name, cell in found.items()}
    frames = []
    for name, cell in found.items():
        frame = cell.table.drop(columns="losses")
        tuning = cell.facts["tuning"]
        frame.insert(0, "optimizer", name)
        for place, (key, value) in enumerate(where.items()):
            frame.insert(place, key, value)
        frame["learning_rate"] = tuning["learning_rate"] if tuning else math.nan
        frame["ms_per_step"] = times.get(name, math.nan)
        steps = reached[name].where(valid, math.nan)
        speedup = torch.where(valid, reached[reference] / reached[name], math.nan)
        frame["steps_to_target"] = steps.numpy()
        frame["seconds_to_target"] = steps.numpy() * frame["ms_per_step"] / 1e3
        frame["speedup"] = speedup.numpy()
        frame["time_speedup"] = (
            speedup.numpy() * times.get(reference, math.nan) / frame["ms_per_step"]
        )
        ratio = torch.tensor(frame["final_loss"].to_numpy()) / target
        frame["loss_ratio"] = ratio.where(valid & (target > 0), math.nan).numpy()
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def _steps(cell: Cell, target: torch.Tensor) -> torch.Tensor:
    """Steps to the targets ``(M,)``, infinite where never."""
    steps = cell.runs.steps_to(target)
    return torch.tensor([math.inf if step is None else step for step in steps], dtype=torch.float64)


def summarise(frame: pd.DataFrame, reference: str) -> list[dict[str, Any]]:
    """Figures of every optimizer at every setting, best final loss first within a setting.

    Args:
        frame: tidy rows.
        reference: the tuned baseline that ``behind`` and ``ahead`` are about: whether the paired difference in final
            loss from it has a 95% interval above or below 0.
    """
    summaries = []
    for where, own in _groups(frame, WHERE):
        rival = own.loc[own["optimizer"] == reference, "final_loss"].tolist()
        group = [_summary(name, of, rival) for (name,), of in _groups(own, ["optimizer"])]
        group.sort(key=lambda summary: summary["final_loss"].mean)
        summaries += [{**dict(zip(WHERE, where, strict=True)), **summary} for summary in group]
    return summaries


def _groups(frame: Any, keys: list[str]) -> list[tuple[tuple[Any, ...], Any]]:
    return list(frame.groupby(keys, sort=False))


def _summary(name: str, own: Any, rival: list[float]) -> dict[str, Any]:
    steps = own["steps_to_target"].dropna()
    figures = {
        figure: bootstrap_mean(own[figure].tolist())
        for figure in ("final_loss", "mean_loss", "min_loss")
    }
    accuracy = own["accuracy"].dropna().tolist() if "accuracy" in own else []
    difference = _difference(own["final_loss"].tolist(), rival)
    return {
        "optimizer": name,
        "num_seeds": len(own),
        "diverged": int(own["diverged"].sum()),
        **figures,
        "final_loss_iqm": iqm(own["final_loss"]),
        "accuracy": bootstrap_mean(accuracy) if len(accuracy) == len(own) else None,
        "reached": int(np.isfinite(steps).sum()),
        "steps_to_target": float(np.median(steps)) if len(steps) else math.nan,
        "speedup": _ratio([own["speedup"]]),
        "time_speedup": _ratio([own["time_speedup"]]),
        "behind": difference.low > 0,
        "ahead": difference.high < 0,
        "learning_rate": own["learning_rate"].iloc[0],
        "ms_per_step": own["ms_per_step"].iloc[0],
    }


def _difference(left: list[float], right: list[float]) -> Interval:
    """Paired difference; a run that diverged makes its side infinitely worse, on both sides it is level."""
    sides = math.isfinite(sum(left)), math.isfinite(sum(right))
    if all(sides):
        return paired_difference(left, right)
    gap = 0.0 if sides[0] == sides[1] else math.inf if sides[1] else -math.inf
    return Interval(gap, gap, gap)


def _ratio(strata: list[Any]) -> Interval | None:
    values = [stratum.dropna().tolist() for stratum in strata]
    return stratified_iqm(values) if any(values) else None


def aggregate(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Interquartile means over tasks, horizons and seeds with stratified bootstrap intervals, best speed-up first."""
    own = frame[frame["axis"] == ""]
    total, found = len(_groups(own, ["task", "horizon"])), []
    for (name,), of in _groups(own, ["optimizer"]):
        strata = [stratum for _, stratum in _groups(of, ["task", "horizon"])]
        ratios = {ratio: _ratio([stratum[ratio] for stratum in strata]) for ratio in RATIOS}
        counts = {
            "settings": len(strata),
            "of": total,
            "runs": len(of),
            "diverged": int(of["diverged"].sum()),
        }
        found.append({"optimizer": name, **counts, **ratios})
    return sorted(found, key=lambda row: -(row["speedup"].mean if row["speedup"] else 0))


def costs(frame: pd.DataFrame, column: str) -> dict[str, np.ndarray]:
    """Optimizer -> its cost of every (task, horizon, seed), infinite where it has no such run or never got there."""
    own: Any = frame[frame["axis"] == ""]
    table = own.pivot(index=["task", "horizon", "seed"], columns="optimizer", values=column)
    wanted = table.notna().any(axis=1)  # a seed on which the reference diverged has no target
    return {
        name: table.loc[wanted, name].fillna(np.inf).to_numpy()
        for name in own["optimizer"].unique()
    }


def losses(frame: pd.DataFrame) -> dict[str, dict[str, list[float]]]:
    """Optimizer -> task and horizon -> final loss of each seed."""
    own = frame[frame["axis"] == ""]
    return {
        name: {
            str(where): stratum["final_loss"].tolist()
            for where, stratum in _groups(of, ["task", "horizon"])
        }
        for (name,), of in _groups(own, ["optimizer"])
    }
