"""Intervals over seeds: how often they cover, and what they make of few, equal and lost values."""

import math

import numpy as np
import pytest
from scipy import stats

from learned_opt.evaluation.intervals import mean_interval

REPEATS = 1000
LOG_DEVIATION = 0.5


def coverage(draw, truth: float) -> float:
    hits = 0
    for _ in range(REPEATS):
        interval = mean_interval(draw().tolist(), num_resamples=1000)
        hits += interval.low <= truth <= interval.high
    return hits / REPEATS


@pytest.mark.parametrize("num_seeds", [5, 8, 10, 16])
def test_intervals_of_normal_values_cover_the_mean(num_seeds) -> None:
    """Percentiles covered 85 to 93%."""
    source = np.random.default_rng(1)
    covered = coverage(lambda: source.normal(3.0, 1.0, num_seeds), 3.0)
    assert 0.93 <= covered <= 0.985


@pytest.mark.parametrize("num_seeds", [5, 8, 10, 16])
def test_intervals_of_lognormal_values_cover_the_mean(num_seeds) -> None:
    """Percentiles covered 79 to 89%, Student's t alone 91 to 93%."""
    source = np.random.default_rng(1)
    truth = math.exp(LOG_DEVIATION**2 / 2)
    covered = coverage(lambda: source.lognormal(0.0, LOG_DEVIATION, num_seeds), truth)
    assert 0.93 <= covered <= 0.985


def test_two_values_have_the_interval_of_student() -> None:
    """Resamples of two values that differ have one mean: the bootstrap says nothing."""
    interval = mean_interval([1.0, 3.0])
    expected = stats.t.interval(0.95, 1, loc=2.0, scale=1.0)
    assert interval == pytest.approx((2.0, *expected))


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0, 2.0], [0.1, 0.1, 0.1, 0.1, 0.1 + 1e-12]])
def test_values_that_are_nearly_all_equal_have_a_finite_interval(values) -> None:
    """A resample of equal values has no standard error, by rounding or not."""
    interval = mean_interval(values)
    assert interval.low < interval.mean < interval.high
    assert interval.high - interval.low < 50 * (max(values) - min(values))


def test_a_run_that_diverged_and_runs_that_are_equal() -> None:
    assert mean_interval([1.0, math.inf]).mean == math.inf
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_the_interval_of_a_skewed_sample_reaches_to_the_side_of_its_tail() -> None:
    quantiles = stats.lognorm.ppf((np.arange(10) + 0.5) / 10, 1.0)
    interval = mean_interval(quantiles.tolist())
    assert interval.high - interval.mean > 1.5 * (interval.mean - interval.low)
