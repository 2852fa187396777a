"""Numbers as people read them: the only place that turns a figure into text."""

import math

from learned_opt.evaluation.intervals import Interval

DIVERGED = "diverged"  # what stands for a mean over runs of which one has no finite loss
ABSENT = "-"


def number(value: float | None, digits: int = 4) -> str:
    """A number with so many decimal places; a loss that is not finite has diverged.

    >>> number(0.12345), number(float("inf")), number(None)
    ('0.1235', 'diverged', '-')
    """
    if value is None:
        return ABSENT
    return f"{value:.{digits}f}" if math.isfinite(value) else DIVERGED


def interval(
    value: Interval | None, digits: int = 4, *, brief: bool = False, signed: bool = False
) -> str:
    """A mean with its interval.

    Args:
        value: the interval; None where there is none.
        digits: decimal places.
        brief: half of the width in place of both ends, for narrow terminals.
        signed: write the plus of a difference.

    >>> interval(Interval(1.0, 0.5, 1.5), 2), interval(Interval(1.0, 0.5, 1.5), 2, brief=True)
    ('1.00 [0.50, 1.50]', '1.00 ±0.50')
    """
    if value is None:
        return ABSENT
    if not math.isfinite(value.mean):
        return DIVERGED

    sign = "+" if signed else ""
    mean = f"{value.mean:{sign}.{digits}f}"
    if brief:
        return f"{mean} ±{(value.high - value.low) / 2:.{digits}f}"

    low = f"{value.low:{sign}.{digits}f}"
    high = f"{value.high:{sign}.{digits}f}" if math.isfinite(value.high) else "inf"
    return f"{mean} [{low}, {high}]"


def learning_rate(value: float | None) -> str:
    """Three digits of a tuned learning rate; a learned optimizer has none.

    >>> learning_rate(0.0630957), learning_rate(None)
    ('0.0631', '-')
    """
    if value is None or math.isnan(value):
        return ABSENT
    return f"{value:.3g}"
