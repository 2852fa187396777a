"""The generalisation card: how far from a task a learned optimizer goes on working, axis by axis."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

FAILURE = """\
A point fails when a run of the learned optimizer diverged there, or when its final loss is behind that of {reference},
tuned at that very point: the 95% interval of their paired difference lies above 0. The points of an axis go away from
the task, one after another; **first failure** is the first that fails. Each cell: final loss over {reference}'s."""
FIRST, DIVERGED, BEHIND, FITS_NOT = "first failure", "diverged", "behind", "does not fit"


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
        """For tables."""
        if self.status == FITS_NOT:
            return FITS_NOT
        words = [
            f"x{self.ratio:.3g}" if math.isfinite(self.ratio) else "",
            self.detail or self.status,
        ]
        text = " ".join(filter(None, words))
        return f"{text}, **{FIRST}**" if self.first else text


def card(
    summaries: Sequence[Mapping[str, Any]],
    left_out: Sequence[Mapping[str, Any]],
    learned: Sequence[str],
    reference: str,
) -> dict[str, dict[str, dict[str, list[Point]]]]:
    """Task -> axis -> learned optimizer -> its points, in the order in which they were run.

    Args:
        summaries: of ``scores.summarise``.
        left_out: cells that could not be, with the reason.
        learned: the learned optimizers.
        reference: the tuned baseline that they are held against at every point.
    """
    places = {(s["task"], s["axis"], s["point"]): None for s in summaries if s["axis"]}
    found = {(s["task"], s["axis"], s["point"], s["optimizer"]): s for s in summaries}
    reasons = {(s["task"], s["axis"], s["point"], s["optimizer"]): s["reason"] for s in left_out}
    cards: dict[str, dict[str, dict[str, list[Point]]]] = {}
    for task, axis, point in places:
        axes = cards.setdefault(task, {}).setdefault(axis, {name: [] for name in learned})
        for name in learned:
            key = (task, axis, point, name)
            own, rival = found.get(key), found[task, axis, point, reference]
            status, detail = _status(own, reasons.get(key, ""))
            ratio = own["final_loss"].mean / rival["final_loss"].mean if own else math.nan
            failed = status in (DIVERGED, BEHIND)
            first = failed and not any(earlier.first for earlier in axes[name])
            axes[name].append(Point(point, status, detail, ratio, first))
    return cards


def _status(own: Mapping[str, Any] | None, reason: str) -> tuple[str, str]:
    if own is None:
        return FITS_NOT, reason
    if own["diverged"]:
        return DIVERGED, f"diverged {own['diverged']}/{own['num_seeds']}"
    return (BEHIND, "") if own["behind"] else ("", "ahead" if own["ahead"] else "level")
