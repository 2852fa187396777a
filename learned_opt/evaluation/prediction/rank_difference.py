"""How much better one predictor ranks networks than another, with an interval.

Legend: n networks of the test split, S seeds of a predictor, R resamples.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from learned_opt.evaluation.intervals import LEVEL, Interval

NUM_RESAMPLES = 2_000
Array = NDArray[np.floating]


def tau_difference(
    left: Sequence[Sequence[float]], right: Sequence[Sequence[float]], success: Sequence[float]
) -> Interval:
    """Mean over seeds of Kendall's tau-b of ``left`` less that of ``right``, with a 95% interval.

    A bootstrap in two ways at once: a resample draws networks, the same for both predictors, and
    seeds of each predictor by themselves. So the interval holds for other networks of such a zoo
    and other seeds, not for another zoo or another training split.

    Args:
        left: predictions of one predictor, S lists of n.
        right: those of the other one.
        success: what is true, n.

    Source: Owen 2007, The pigeonhole bootstrap (arXiv 0712.1111).

    >>> tau_difference([[1.0, 2.0, 3.0]], [[1.0, 2.0, 3.0]], [0.1, 0.2, 0.3])
    Interval(mean=0.0, low=0.0, high=0.0)
    """
    source = np.random.default_rng(0)
    num_networks = len(success)
    probabilities = np.full(num_networks, 1 / num_networks)
    # the first row is the test split itself
    counts = np.ones((NUM_RESAMPLES + 1, num_networks))
    counts[1:] = source.multinomial(num_networks, probabilities, NUM_RESAMPLES)

    means = []
    for predictions in (left, right):
        taus = np.stack(
            [_taus(np.asarray(row), np.asarray(success), counts) for row in predictions]
        )
        seeds = source.integers(len(taus), size=(len(taus), NUM_RESAMPLES + 1))
        seeds[:, 0] = np.arange(len(taus))
        means.append(np.take_along_axis(taus, seeds, axis=0).mean(axis=0))

    differences = means[0] - means[1]
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(differences[1:], (tail, 1 - tail))
    return Interval(float(differences[0]), float(low), float(high))


def _taus(predicted: Array, success: Array, counts: Array) -> Array:
    """Tau-b of each resample ``(R,)``, whose networks occur as often as ``counts`` (R, n) says.

    Copies of one network are ties in both orders, which tau-b leaves out.
    """
    order = np.sign(predicted[:, None] - predicted[None])
    true_order = np.sign(success[:, None] - success[None])

    agreement = ((counts @ (order * true_order)) * counts).sum(axis=1)
    pairs = ((counts @ np.abs(order)) * counts).sum(axis=1)
    true_pairs = ((counts @ np.abs(true_order)) * counts).sum(axis=1)
    scale = np.sqrt(pairs * true_pairs)
    # predictions that are all the same rank nothing
    return np.divide(agreement, scale, out=np.zeros_like(scale), where=scale > 0)
