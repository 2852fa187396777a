"""Means over meta-seeds and held-out seeds, with intervals that hold at few meta-seeds.

Legend: S meta-seeds (meta-trainings that differ in their seed only), n held-out seeds, R resamples.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from learned_opt.evaluation.intervals import FURTHEST, LEVEL, Interval, mean_interval

NUM_RESAMPLES = 2_000
Array = NDArray[np.floating]
ByMetaSeed = Mapping[int, Sequence[float]]  # meta-seed -> a value for each held-out seed


class Parts(NamedTuple):
    """The mean squares of a table of meta-seeds x held-out seeds, and their degrees of freedom."""

    squares: tuple[float, float, float]  # of meta-seeds, held-out seeds, what is left
    freedom: tuple[int, int, int]
    size: int  # S n


def two_level_interval(values: ByMetaSeed) -> Interval:
    r"""Mean over meta-seeds and held-out seeds with a 95% interval.

    All meta-trainings are evaluated on the same held-out seeds, so that a value is
    :math:`y_{sh} = \mu + a_s + b_h + e_{sh}`. A resample draws meta-seeds first and then held-out
    seeds, which all of them share: draws of each meta-training's seeds apart would count
    :math:`b_h` as S times as many independent values. Resamples of few meta-seeds vary too little,
    and of three there are ten: their quantiles are stretched to the width of Student's interval of
    the two-way table, whose variance is :math:`(MS_a + MS_b - MS_e) / (S n)`, at least the larger
    of the first two, with Satterthwaite's degrees of freedom. No end is nearer than those.

    How often the mean was covered, in per cent of 1,000 samples with n = 16 (standard error 0.7);
    the deviations are those of a, b and e. Of lognormal ones, 0.5 is that of the logarithm:

    =======================  =====  =====  =====
    deviations               S = 3  S = 5  S = 8
    =======================  =====  =====  =====
    1, 1, 1                   93.8   95.2   95.8
    0.3, 1, 0.3               94.9   94.6   96.2
    1, 0.3, 0.3               93.5   95.3   94.3
    0, 1, 0.5                 95.4   95.6   95.5
    0, 0, 1                   99.3   98.9   98.3
    0.1, lognormal 0.5, 0.1   95.4   94.4   93.5
    =======================  =====  =====  =====

    With one meta-seed it is the interval over its held-out seeds, and with one held-out seed that
    over the meta-seeds. A value that is not finite makes all infinite.

    Args:
        values: meta-seed -> a value for each held-out seed, the same seeds in one order.

    Raises:
        ValueError: there is none, or they are not of one length.

    Source: Owen 2007, The pigeonhole bootstrap (arXiv 0712.1111) for the resamples; Satterthwaite
        1946 for the degrees of freedom.

    >>> two_level_interval({0: [1.0, 2.0], 1: [1.0, 2.0]}).mean
    1.5
    """
    table = _table(values)
    if not np.isfinite(table).all():
        return Interval(math.inf, math.inf, math.inf)
    if min(table.shape) == 1:
        return mean_interval(table.ravel().tolist())

    return _interval(float(table.mean()), [_parts(table)], None, _resampled(table))


def two_level_difference(left: ByMetaSeed, right: ByMetaSeed) -> Interval:
    """Mean of ``left - right``, paired over held-out seeds, with a 95% interval.

    Where both have the same meta-seeds, these are paired, too; else they are drawn apart. A
    baseline, which has no meta-seed, is one of a single one that is the same for all.

    Args:
        left: meta-seed -> a value for each held-out seed.
        right: the same of the other optimizer, on the same held-out seeds.

    Raises:
        ValueError: there are no values, or they are not of one length.

    >>> two_level_difference({0: [1.0, 2.0], 1: [1.5, 2.5]}, {0: [1.0, 2.0], 1: [1.5, 2.5]})
    Interval(mean=0.0, low=0.0, high=0.0)
    """
    first = _table(left)
    second = _table(right)
    if first.shape[1] != second.shape[1]:
        raise ValueError(
            f"both must have the same held-out seeds, got {first.shape[1]} and {second.shape[1]}."
        )
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        return _of_diverged(first, second)

    if left.keys() == right.keys():
        second = _table({seed: right[seed] for seed in left})
        return _of_table(first - second)
    if len(second) == 1 or len(first) == 1:
        # one row counts as fixed: nothing is known of how others of its kind would differ
        return _of_table(first - second)

    if first.shape[1] == 1:
        raise ValueError("meta-seeds that are not paired need at least 2 held-out seeds, got 1.")
    mean = float(first.mean() - second.mean())
    held_out = first.mean(0) - second.mean(0)  # (n,)
    resampled = _resampled_apart(first, second)
    return _interval(mean, [_parts(first), _parts(second)], held_out, resampled)


def _of_table(table: Array) -> Interval:
    return two_level_interval({i: row.tolist() for i, row in enumerate(table)})


def _of_diverged(left: Array, right: Array) -> Interval:
    """A side with a run that diverged is infinitely worse; where both have one they are level."""
    is_left = bool(np.isfinite(left).all())
    is_right = bool(np.isfinite(right).all())
    gap = 0.0
    if is_left != is_right:
        gap = -math.inf if is_left else math.inf
    return Interval(gap, gap, gap)


def _table(values: ByMetaSeed) -> Array:
    lengths = {len(row) for row in values.values()}
    if len(lengths) != 1 or 0 in lengths:
        raise ValueError(
            "every meta-seed must have a value for each of the same held-out seeds, got "
            f"{[len(row) for row in values.values()]} values."
        )
    return np.array(list(values.values()), dtype=float)  # (S, n)


def _parts(table: Array) -> Parts:
    num_meta, num_held_out = table.shape
    rows = table.mean(1)
    columns = table.mean(0)
    residual = table - rows[:, None] - columns + table.mean()

    freedom = (num_meta - 1, num_held_out - 1, (num_meta - 1) * (num_held_out - 1))
    squares = (
        num_held_out * float(rows.var(ddof=1)),
        num_meta * float(columns.var(ddof=1)),
        float(np.square(residual).sum()) / freedom[2],
    )
    return Parts(squares, freedom, table.size)


def _interval(
    mean: float, parts: Sequence[Parts], held_out: Array | None, resampled: Array
) -> Interval:
    """Student's interval of the variance, longer on a side where the resamples are.

    Args:
        mean: the estimate.
        parts: of its table, or of both tables of a difference.
        held_out: of two tables the difference over held-out seeds ``(n,)``; None of one.
        resampled: estimates of R resamples.
    """
    added, taken = _terms(parts, held_out)
    variance = sum(term for term, _ in added) - sum(term for term, _ in taken)
    variance = max(variance, *(term for term, _ in added))
    if variance <= 0:
        return Interval(mean, mean, mean)

    spread = sum(term**2 / freedom for term, freedom in (*added, *taken))
    freedom = max(1.0, variance**2 / spread)
    half = float(stats.t.ppf((1 + LEVEL) / 2, freedom)) * math.sqrt(variance)

    # as wide as the resamples would be, were they normal with this variance
    deviation = float(resampled.std())
    normal = float(stats.norm.ppf((1 + LEVEL) / 2))
    stretch = half / (normal * deviation) if deviation > 0 else 0.0
    low, high = np.quantile(resampled, ((1 - LEVEL) / 2, (1 + LEVEL) / 2))
    below = min(max(stretch * (mean - float(low)), half), FURTHEST * half)
    above = min(max(stretch * (float(high) - mean), half), FURTHEST * half)
    return Interval(mean, mean - below, mean + above)


Term = tuple[float, int]  # a variance, and its degrees of freedom


def _terms(parts: Sequence[Parts], held_out: Array | None) -> tuple[list[Term], list[Term]]:
    """The variances that add up to that of the estimate, and those that are counted twice."""
    added: list[Term] = []
    taken: list[Term] = []
    for part in parts:
        of_meta, of_held_out, of_rest = [square / part.size for square in part.squares]
        added.append((of_meta, part.freedom[0]))
        if held_out is None:
            added.append((of_held_out, part.freedom[1]))
        taken.append((of_rest, part.freedom[2]))

    if held_out is not None:
        added.append((float(held_out.var(ddof=1)) / len(held_out), len(held_out) - 1))
    return added, taken


def _resampled(table: Array) -> Array:
    """Means of resamples of meta-seeds and then of held-out seeds, ``(R,)``."""
    source = np.random.default_rng(0)
    of_meta = _weights(source, len(table))  # (R, S)
    of_held_out = _weights(source, table.shape[1])  # (R, n)
    return ((of_meta @ table) * of_held_out).sum(1)


def _resampled_apart(left: Array, right: Array) -> Array:
    """The same of a difference whose sides have meta-seeds that are drawn apart."""
    source = np.random.default_rng(0)
    rows = _weights(source, len(left)) @ left - _weights(source, len(right)) @ right  # (R, n)
    return (rows * _weights(source, left.shape[1])).sum(1)


def _weights(source: np.random.Generator, count: int) -> Array:
    """How often each of so many is drawn in R resamples, as shares."""
    return source.multinomial(count, [1 / count] * count, size=NUM_RESAMPLES) / count
