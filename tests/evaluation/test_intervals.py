"""Intervals over seeds: how often they cover, and what they make of few, equal and lost values."""

import math

import numpy as np
import pytest
from scipy import stats

from learned_opt.evaluation.intervals import mean_interval

REPEATS = 2000


def coverage(draw, truth: float) -> float:
    hits = 0
    for _ in range(REPEATS):
        interval = mean_interval(draw().tolist())
        hits += interval.low <= truth <= interval.high
    return hits / REPEATS


@pytest.mark.parametrize("num_seeds", [5, 8, 10, 16])
def test_intervals_of_normal_values_cover_the_mean(num_seeds) -> None:
    """Percentiles covered 85 to 93%."""
    source = np.random.default_rng(1)
    covered = coverage(lambda: source.normal(3.0, 1.0, num_seeds), 3.0)
    assert 0.945 <= covered <= 0.98


@pytest.mark.parametrize(
    ("log_deviation", "num_seeds", "least"),
    [
        (0.5, 5, 0.935),
        (0.5, 8, 0.935),
        (0.5, 10, 0.935),
        (0.5, 16, 0.94),
        (1.0, 5, 0.885),
        (1.0, 8, 0.91),
        (1.0, 10, 0.92),
        (1.0, 16, 0.935),
    ],
)
def test_intervals_of_lognormal_values_cover_the_mean(log_deviation, num_seeds, least) -> None:
    """With 1, percentiles covered 79 to 86%, Student's t 82 to 86%."""
    source = np.random.default_rng(1)
    truth = math.exp(log_deviation**2 / 2)
    covered = coverage(lambda: source.lognormal(0.0, log_deviation, num_seeds), truth)
    assert least <= covered <= 0.98


def test_normal_values_pay_little_for_the_skewed_ones() -> None:
    source = np.random.default_rng(1)
    widths = []
    for _ in range(REPEATS):
        interval = mean_interval(source.normal(size=16).tolist())
        widths.append(interval.high - interval.low)
    student = 2 * stats.t.ppf(0.975, 15) / math.sqrt(16)
    assert 1.0 < np.mean(widths) / student < 1.15


def test_two_values_have_the_interval_of_student() -> None:
    interval = mean_interval([1.0, 3.0])
    expected = stats.t.interval(0.95, 1, loc=2.0, scale=1.0)
    assert interval == pytest.approx((2.0, *expected))


def test_the_end_on_the_side_of_the_tail_by_hand() -> None:
    """Values of skewness 2, which is enlarged to 3; Student's quantile is 3.182."""
    half = 3.182446 * 0.25
    cube = 1 - 3 * (3.182446 / 2 + 3 / 24)
    reach = (1 + abs(cube) ** (1 / 3)) * 0.5
    assert mean_interval([1.0, 1.0, 1.0, 2.0]) == pytest.approx((1.25, 1.25 - half, 1.25 + reach))
    assert mean_interval([2.0, 2.0, 2.0, 1.0]) == pytest.approx((1.75, 1.75 - reach, 1.75 + half))


@pytest.mark.parametrize("unit", [1e-120, 1.0, 1e100])
def test_a_unit_changes_nothing(unit) -> None:
    values = [1.0, 1.1, 1.3, 1.9, 1.2]
    scaled = mean_interval([unit * value for value in values])
    expected = [unit * end for end in mean_interval(values)]
    assert scaled == pytest.approx(expected, rel=1e-9, abs=0.0)


def test_symmetric_values_have_the_interval_of_student() -> None:
    values = [1.0, 2.0, 3.0, 4.0, 5.0]
    expected = stats.t.interval(0.95, 4, loc=3.0, scale=np.std(values, ddof=1) / math.sqrt(5))
    assert mean_interval(values) == pytest.approx((3.0, *expected))


@pytest.mark.parametrize("values", [[1.0, 1.0, 1.0, 2.0], [0.1, 0.1, 0.1, 0.1, 0.1 + 1e-12]])
def test_values_that_are_nearly_all_equal_have_a_finite_interval(values) -> None:
    """By rounding or not."""
    interval = mean_interval(values)
    assert interval.low < interval.mean < interval.high
    assert interval.high - interval.low < 10 * (max(values) - min(values))


def test_a_run_that_diverged_and_runs_that_are_equal() -> None:
    assert mean_interval([1.0, math.inf]).mean == math.inf
    assert mean_interval([2.0, 2.0]) == (2.0, 2.0, 2.0)


def test_the_interval_of_a_skewed_sample_reaches_to_the_side_of_its_tail() -> None:
    quantiles = stats.lognorm.ppf((np.arange(10) + 0.5) / 10, 1.0)
    interval = mean_interval(quantiles.tolist())
    assert interval.high - interval.mean > 1.5 * (interval.mean - interval.low)
