"""Means over seeds with bootstrap confidence intervals."""

from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean and its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: list[float], num_resamples: int = 10_000) -> Interval:
    """Mean over seeds with a 95% percentile bootstrap interval; the resamples are the same at every call.

    A value that is not finite (a run that diverged) makes mean and interval infinite.
    """
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        return Interval(np.inf, np.inf, np.inf)
    if len(array) < 2 or (array == array[0]).all():
        return Interval(float(array.mean()), float(array.mean()), float(array.mean()))
    result = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    return Interval(float(array.mean()), *map(float, result.confidence_interval))


def paired_difference(left: list[float], right: list[float]) -> Interval:
    """Mean of ``left - right`` over paired seeds, with its interval; below zero means that left is lower."""
    return bootstrap_mean([a - b for a, b in zip(left, right, strict=True)])
