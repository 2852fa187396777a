"""The generalisation card: how far from a task a learned optimizer goes on working."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FAILURE = """\
A point fails when a run of the learned optimizer diverged there, or when its final loss is behind
that of {reference}, tuned at that very point: the 95% interval of their paired difference lies
above 0. The points of an axis go away from the task, one after another; **first failure** is the
first that fails. Each cell: final loss over {reference}'s."""

# how a point can stand, and the mark of the first that fails
FITS_NOT = "does not fit"
DIVERGED = "diverged"
BEHIND = "behind"
FIRST = "first failure"

Summary = Mapping[str, Any]  # of one optimizer at one point, see ``scores.summarise``


class Point(NamedTuple):
    """One optimizer at one point of an axis.

    Args:
        point: its name.
        status: empty where it works, or ``diverged``, ``behind``, ``does not fit``.
        detail: how many runs diverged, or why it does not fit.
        ratio: final loss over the reference's; NaN where there is none.
        first: whether it is the first of the axis that fails.
    """

    point: str
    status: str
    detail: str
    ratio: float
    first: bool

    def __str__(self) -> str:
        """The point as a cell of a table."""
        if self.status == FITS_NOT:
            return FITS_NOT
        ratio = f"x{self.ratio:.3g} " if math.isfinite(self.ratio) else ""
        mark = f", **{FIRST}**" if self.first else ""
        return f"{ratio}{self.detail or self.status}{mark}"


def card(
    summaries: Sequence[Summary],
    left_out: Sequence[Mapping[str, Any]],
    learned: Sequence[str],
    reference: str,
) -> dict[str, dict[str, dict[str, list[Point]]]]:
    """The points of every axis of every task.

    Args:
        summaries: of ``scores.summarise``.
        left_out: cells that could not be, with the reason.
        learned: the learned optimizers.
        reference: the tuned baseline that they are held against at every point.

    Returns:
        dict: task -> axis -> learned optimizer -> its points, in the order in which they were run.
    """
    by_cell = {_cell(summary): summary for summary in summaries}
    reasons = {_cell(cell): cell["reason"] for cell in left_out}

    # every point once, in the order of the runs
    points: dict[tuple[str, str, str], None] = {}
    for summary in summaries:
        if summary["axis"]:
            points[summary["task"], summary["axis"], summary["point"]] = None

    cards: dict[str, dict[str, dict[str, list[Point]]]] = {}
    for task, axis, point in points:
        axes = cards.setdefault(task, {})
        rows = axes.setdefault(axis, {name: [] for name in learned})
        for name in learned:
            cell = (task, axis, point, name)
            rival = by_cell[task, axis, point, reference]
            reason = reasons.get(cell, "")
            rows[name].append(_point(point, by_cell.get(cell), rival, reason, rows[name]))

    return cards


def first_failures(axes: Mapping[str, Mapping[str, Sequence[Point]]], reference: str) -> list[str]:
    """Where each learned optimizer first falls behind the reference, a sentence for each.

    Args:
        axes: axis -> learned optimizer -> its points, those of one task.
        reference: the tuned baseline.

    >>> near = Point("x2", "", "ahead", 0.9, first=False)
    >>> far = Point("x4", BEHIND, "", 1.2, first=True)
    >>> first_failures({"wider": {"unf": [near, far]}, "longer": {"unf": [near]}}, "adam")
    ['unf first falls behind tuned adam at wider x4 (x1.2); never at longer (up to x2)']
    """
    names = list(next(iter(axes.values()))) if axes else []
    sentences = []
    for name in names:
        failures = []
        never = []
        unfit = []
        for axis, points_of in axes.items():
            tried = [point for point in points_of[name] if point.status != FITS_NOT]
            failed = [point for point in tried if point.first]
            if failed:
                failures.append(f"{axis} {failed[0].point} ({_extent(failed[0])})")
            elif tried:
                never.append(f"{axis} (up to {tried[-1].point})")
            else:
                unfit.append(axis)

        parts = [f"{name} falls behind tuned {reference} nowhere that it fits"]
        if failures:
            parts = [f"{name} first falls behind tuned {reference} at {', '.join(failures)}"]
        if never:
            parts.append(f"never at {', '.join(never)}")
        if unfit:
            parts.append(f"does not fit {', '.join(unfit)}")
        sentences.append("; ".join(parts))
    return sentences


def _extent(point: Point) -> str:
    """How bad it is there."""
    return point.detail or f"x{point.ratio:.3g}"


def _cell(summary: Mapping[str, Any]) -> tuple[str, str, str, str]:
    return summary["task"], summary["axis"], summary["point"], summary["optimizer"]


def _point(
    name: str, summary: Summary | None, rival: Summary, reason: str, earlier: Sequence[Point]
) -> Point:
    if summary is None:
        return Point(name, FITS_NOT, reason, math.nan, first=False)

    status = ""
    detail = "ahead" if summary["ahead"] else "level"
    if summary["diverged"]:
        status = DIVERGED
        detail = f"diverged {summary['diverged']}/{summary['num_seeds']}"
    elif summary["behind"]:
        status = BEHIND
        detail = ""

    first = bool(status) and not any(point.first for point in earlier)
    ratio = summary["final_loss"].mean / rival["final_loss"].mean
    return Point(name, status, detail, ratio, first)
