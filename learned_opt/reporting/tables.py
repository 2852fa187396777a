"""Evaluation rows and the tables made of them."""

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

from learned_opt.evaluation.intervals import Interval, bootstrap_mean, paired_difference
from learned_opt.evaluation.seeded_runs import Runs
from learned_opt.reporting.terminal import FittingTable


class Entry(NamedTuple):
    """One optimizer's held-out runs.

    Args:
        runs: the runs.
        ms_per_step: milliseconds per inner step of one chain.
        learning_rate: the tuned learning rate; None for a learned optimizer.
    """

    runs: Runs
    ms_per_step: float
    learning_rate: float | None


def target(entries: dict[str, Entry]) -> float:
    """The lowest mean final loss of a tuned optimizer; without one there is nothing to reach."""
    finals = (
        float(entry.runs.final_loss.mean())
        for entry in entries.values()
        if entry.learning_rate is not None
    )
    return min(finals, default=-math.inf)


def evaluation_rows(task: str, entries: dict[str, Entry]) -> list[dict[str, Any]]:
    """One row per optimizer and seed, as ``evaluation.json`` holds them.

    ``steps_to_target`` counts inner steps to the best baseline's mean final loss, null where a run never got there;
    a loss that diverged is null.
    """
    rows, aim = [], target(entries)
    for name, entry in entries.items():
        runs = entry.runs
        accuracy = runs.heldout.get("accuracy")
        for seed, steps in enumerate(runs.steps_to(aim)):
            rows.append(
                {
                    "task": task,
                    "optimizer": name,
                    "seed": seed,
                    "horizon": len(runs.losses),
                    "mean_loss": _finite(runs.mean_loss[seed]),
                    "final_loss": _finite(runs.final_loss[seed]),
                    "accuracy": None if accuracy is None else _finite(accuracy[seed]),
                    "steps_to_target": steps,
                    "ms_per_step": entry.ms_per_step,
                    "learning_rate": entry.learning_rate,
                    "heldout": {
                        k: _finite(v[seed]) for k, v in runs.heldout.items() if k != "accuracy"
                    },
                }
            )
    return rows


def summarise(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Means with 95% intervals, one summary per optimizer in the order of the rows."""
    summaries = []
    for name in dict.fromkeys(row["optimizer"] for row in rows):
        own = [row for row in rows if row["optimizer"] == name]
        reached = [row["steps_to_target"] for row in own if row["steps_to_target"] is not None]
        accuracy = (
            None if own[0]["accuracy"] is None else bootstrap_mean([row["accuracy"] for row in own])
        )
        summaries.append(
            {
                "optimizer": name,
                "learning_rate": own[0]["learning_rate"],
                "mean_loss": bootstrap_mean(_column(own, "mean_loss")),
                "final_loss": bootstrap_mean(_column(own, "final_loss")),
                "accuracy": accuracy,
                "steps_to_target": sorted(reached)[len(reached) // 2]
                if len(reached) * 2 > len(own)
                else None,
                "reached": len(reached),
                "num_seeds": len(own),
                "horizon": own[0]["horizon"],
                "ms_per_step": own[0]["ms_per_step"],
            }
        )
    return summaries


def verdicts(rows: list[dict[str, Any]], learned: str) -> list[str]:
    """For each loss, one sentence: the learned optimizer against the best baseline for that loss, paired by seed."""
    if _names(rows) == [learned]:
        return [f"no baseline was run, so that {learned} is compared with nothing"]
    sentences = []
    for figure in ("mean_loss", "final_loss"):
        losses = {
            name: _column([r for r in rows if r["optimizer"] == name], figure)
            for name in _names(rows)
        }
        rival = min(
            (name for name in losses if name != learned), key=lambda name: sum(losses[name])
        )
        difference = paired_difference(losses[learned], losses[rival])
        word = (
            "ahead of" if difference.high < 0 else "behind" if difference.low > 0 else "level with"
        )
        interval = f"{difference.mean:+.4f} [{difference.low:+.4f}, {difference.high:+.4f}]"
        sentences.append(
            f"{figure.replace('_', ' ')}: {learned} is {word} {rival}, difference {interval} (paired over seeds)"
        )
    return sentences


HEADINGS = ("optimizer", "mean loss", "final loss", "accuracy", "steps to target", "ms/step", "lr")


def cells(summary: dict[str, Any], brief: bool = False) -> tuple[str, ...]:
    """A summary as text, in the order of HEADINGS; ``brief`` gives half widths in place of intervals."""
    steps, lr = summary["steps_to_target"], summary["learning_rate"]
    reached = f"({summary['reached']}/{summary['num_seeds']})"
    return (
        summary["optimizer"],
        _interval(summary["mean_loss"], brief),
        _interval(summary["final_loss"], brief),
        "-" if summary["accuracy"] is None else _interval(summary["accuracy"], brief, 3),
        f"{steps or '>' + str(summary['horizon'])} {reached}",
        f"{summary['ms_per_step']:.3f}",
        "-" if lr is None else f"{lr:.3g}",
    )


def as_text(summary: dict[str, Any]) -> dict[str, str]:
    """The cells of a summary by their headings."""
    return dict(zip(HEADINGS, cells(summary), strict=True))


def heldout_table(rows: list[dict[str, Any]]) -> list[dict[str, str]]:
    """Means of what else the task measures on held-out data, as text by heading; empty where it is nothing."""
    figures = list(rows[0]["heldout"])
    table = []
    for name in _names(rows) if figures else []:
        own = [row["heldout"] for row in rows if row["optimizer"] == name]
        means = {
            figure.replace("_", " "): _interval(bootstrap_mean(_column(own, figure)), False)
            for figure in figures
        }
        table.append({"optimizer": name, **means})
    return table


def plain_table(headings: Iterable[str], rows: Iterable[dict[str, Any]]) -> FittingTable:
    """A table for terminals of dicts with the headings as keys."""
    headings = list(headings)
    return FittingTable(headings, [[str(row[heading]) for heading in headings] for row in rows])


def markdown_table(headings: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    """A GitHub table."""
    lines = [list(headings), ["---"] * len(list(headings)), *map(list, rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_json(path: Path, value: Any) -> None:
    """Write strict JSON: no NaN, no infinity."""
    path.write_text(json.dumps(value, indent=1, allow_nan=False) + "\n")


def _names(rows: list[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(row["optimizer"] for row in rows))


def _column(rows: list[dict[str, Any]], figure: str) -> list[float]:
    return [math.inf if row[figure] is None else row[figure] for row in rows]


def _finite(value: Any) -> float | None:
    return float(value) if math.isfinite(value) else None


def _interval(interval: Interval, brief: bool, digits: int = 4) -> str:
    if not math.isfinite(interval.mean):
        return "diverged"
    if brief:
        return f"{interval.mean:.{digits}f} ±{(interval.high - interval.low) / 2:.{digits}f}"
    return f"{interval.mean:.{digits}f} [{interval.low:.{digits}f}, {interval.high:.{digits}f}]"
