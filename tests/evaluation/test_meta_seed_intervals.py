"""Intervals over meta-seeds and held-out seeds: closed forms, and how often they cover the mean."""

import math

import numpy as np
import pytest
from scipy import stats

from learned_opt.evaluation.intervals import mean_interval
from learned_opt.evaluation.meta_seed_intervals import two_level_difference, two_level_interval

HELD_OUT = 16


def by_seed(table: np.ndarray, first: int = 0) -> dict[int, list[float]]:
    return {first + i: row.tolist() for i, row in enumerate(table)}


def drawn(source: np.random.Generator, num_meta: int, deviations: tuple) -> np.ndarray:
    of_meta, of_held_out, of_rest = deviations
    table = of_meta * source.normal(size=(num_meta, 1)) + of_held_out * source.normal(size=HELD_OUT)
    return table + of_rest * source.normal(size=(num_meta, HELD_OUT))


def test_one_level_alone_is_the_interval_of_that_level() -> None:
    values = [1.0, 2.0, 4.0, 4.5]
    assert two_level_interval({7: values}) == mean_interval(values)
    assert two_level_interval({i: [value] for i, value in enumerate(values)}) == mean_interval(
        values
    )


def test_meta_trainings_that_differ_widen_the_interval() -> None:
    """Three of a kind that agree on every held-out seed but for a shift each: 2 degrees."""
    shifts = np.array([[0.0], [1.0], [2.0]])
    table = shifts + 1e-3 * np.sin(np.arange(HELD_OUT))
    interval = two_level_interval(by_seed(table))
    assert interval.mean == pytest.approx(table.mean())
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)  # the shifts have deviation 1
    assert (interval.high - interval.low) / 2 == pytest.approx(half, rel=0.15)
    pooled = mean_interval(table.ravel().tolist())
    assert interval.high - interval.low > 5 * (pooled.high - pooled.low)


def test_held_out_seeds_count_once_however_many_meta_seeds_share_them() -> None:
    table = np.tile(np.linspace(0, 1, HELD_OUT), (8, 1))
    interval = two_level_interval(by_seed(table))
    alone = mean_interval(table[0].tolist())
    assert interval.high - interval.low == pytest.approx(alone.high - alone.low, rel=0.1)


def test_a_difference_pairs_what_both_sides_have() -> None:
    source = np.random.default_rng(0)
    base = drawn(source, 3, (1.0, 1.0, 0.05))
    left, right = by_seed(base + 0.5), by_seed(base)
    paired = two_level_difference(left, right)
    assert tuple(paired) == pytest.approx((0.5, 0.5, 0.5))
    # by their numbers, whatever their order
    assert two_level_difference(left, dict(reversed(right.items()))) == paired
    apart = two_level_difference(left, by_seed(base, first=10))
    assert apart.mean == pytest.approx(0.5)
    assert apart.low < 0 < apart.high  # the meta-seeds differ by as much as that
    baseline = two_level_difference(left, {0: (base[0] - 9).tolist()})
    assert baseline.low > 5


def test_runs_that_diverged_and_tables_that_do_not_fit() -> None:
    good = {0: [1.0, 2.0], 1: [1.0, 3.0]}
    bad = {0: [1.0, math.inf], 1: [1.0, 2.0]}
    assert two_level_interval(bad).mean == math.inf
    assert two_level_difference(good, bad).high == -math.inf
    assert two_level_difference(bad, good).low == math.inf
    assert two_level_difference(bad, bad).mean == 0
    with pytest.raises(ValueError, match=r"same held-out seeds, got \[1, 2\] values"):
        two_level_interval({0: [1.0], 1: [1.0, 2.0]})
    with pytest.raises(ValueError, match="same held-out seeds, got 2 and 1"):
        two_level_difference(good, {5: [1.0]})


def coverage(num_meta: int, deviations: tuple, num_samples: int) -> tuple[float, float]:
    """Share of samples whose interval holds the mean, and its standard error."""
    source = np.random.default_rng(1)
    hits = 0
    for _ in range(num_samples):
        interval = two_level_interval(by_seed(drawn(source, num_meta, deviations)))
        hits += interval.low <= 0 <= interval.high
    share = hits / num_samples
    return share, math.sqrt(share * (1 - share) / num_samples)


def test_three_meta_seeds_are_covered() -> None:
    share, error = coverage(3, (1.0, 1.0, 1.0), 200)
    assert share + 3 * error > 0.95
    assert share > 0.9


@pytest.mark.slow
@pytest.mark.parametrize("num_meta", [3, 5, 8])
@pytest.mark.parametrize(
    "deviations", [(1.0, 1.0, 1.0), (0.3, 1.0, 0.3), (1.0, 0.3, 0.3), (0.0, 1.0, 0.5)]
)
def test_the_mean_is_covered(num_meta, deviations) -> None:
    share, error = coverage(num_meta, deviations, 1000)
    assert abs(share - 0.95) < 0.01 + 3 * error


@pytest.mark.slow
def test_a_difference_of_meta_seeds_apart_is_covered() -> None:
    source = np.random.default_rng(2)
    hits = 0
    for _ in range(1000):
        common = source.normal(size=HELD_OUT)
        left = drawn(source, 5, (0.3, 0.3, 0.5)) + common
        right = drawn(source, 3, (0.3, 0.0, 0.5)) + common
        interval = two_level_difference(by_seed(left), by_seed(right, first=50))
        hits += interval.low <= 0 <= interval.high
    assert 0.93 < hits / 1000 < 0.985
