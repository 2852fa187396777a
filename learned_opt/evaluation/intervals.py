"""Means over seeds with bootstrap confidence intervals."""

from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy import stats


class Interval(NamedTuple):
    """A mean and its 95% bootstrap interval."""

    mean: float
    low: float
    high: float


def bootstrap_mean(values: Sequence[float], num_resamples: int = 10_000) -> Interval:
    """Mean over seeds with a 95% percentile bootstrap interval.

    A value that is not finite (a run that diverged) makes mean and interval infinite.

    Args:
        values: one for each seed.
        num_resamples: how many resamples; they are the same at every call.

    >>> bootstrap_mean([2.0, 2.0])
    Interval(mean=2.0, low=2.0, high=2.0)
    """
    return _bootstrap_mean(tuple(values), num_resamples)


@lru_cache(maxsize=4096)  # a page, a table and a sentence ask for the same seeds
def _bootstrap_mean(values: tuple[float, ...], num_resamples: int) -> Interval:
    array = np.asarray(values, dtype=float)
    if not np.isfinite(array).all():
        return Interval(np.inf, np.inf, np.inf)

    mean = float(array.mean())
    if len(array) < 2 or (array == array[0]).all():
        return Interval(mean, mean, mean)

    result = stats.bootstrap(
        (array,),
        np.mean,
        n_resamples=num_resamples,
        method="percentile",
        rng=np.random.default_rng(0),
    )
    low, high = result.confidence_interval
    return Interval(mean, float(low), float(high))


def paired_difference(left: Sequence[float], right: Sequence[float]) -> Interval:
    """Mean of ``left - right`` over paired seeds, with its interval.

    An interval below zero means that left is lower.

    Args:
        left: one value for each seed.
        right: values of the same seeds.

    Raises:
        ValueError: they are not of one length.
    """
    return bootstrap_mean([a - b for a, b in zip(left, right, strict=True)])
