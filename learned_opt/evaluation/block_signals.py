"""Signal and noise of meta-gradient estimators by block of theta, at equal compute.

Legend: R replicates, P meta-parameters of a block.
"""

from collections.abc import Mapping
from math import isfinite, sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from learned_opt.evaluation.estimator_lab import Estimates, snr
from learned_opt.optimizers.blocks import names_by_block

ALL = "all"  # the name of theta as a whole beside its blocks


class BlockSignal(NamedTuple):
    """What one estimator tells about one block, for a budget of inner gradients.

    The mean of m independent estimates has m times the signal to noise of one, and 1/m of its
    variance; the budget pays for m, which need not be whole.

    Args:
        snr: squared norm of the mean over the total variance.
        snr_error: its standard error, by leaving out each replicate in turn.
        variance: total variance.
        cosine: of the mean over all replicates with that of the reference, which the budget has
            no part in: below 1 by noise, and by what the estimator does not see.
    """

    snr: float
    snr_error: float
    variance: float
    cosine: float


def block_signals(
    estimates: Estimates, reference: Mapping[str, Tensor], shapes: Mapping[str, Tensor], budget: int
) -> dict[str, BlockSignal]:
    """The figures of every block of theta, and of ``all``.

    Args:
        estimates: of one estimator, at least two.
        reference: the mean of the reference, by tensor of theta, ``(size,)`` each.
        shapes: theta.
        budget: evaluations of inner gradients that are paid for.
    """
    count = budget / estimates.num_gradients
    signals = {}
    for block, names in {ALL: list(shapes), **names_by_block(shapes)}.items():
        values = torch.cat([estimates.gradients[name] for name in names], 1)  # (R, P)
        aim = torch.cat([reference[name] for name in names])  # (P,)
        signals[block] = BlockSignal(
            snr=count * snr(values),
            snr_error=count * snr_error(values),
            variance=float(values.var(0).sum()) / count,
            cosine=float(cosine_similarity(values.mean(0), aim, dim=0)),
        )
    return signals


def snr_error(gradients: Tensor) -> float:
    """The jackknife standard error of ``estimator_lab.snr``; nan for fewer than three estimates.

    Args:
        gradients: ``(R, P)``.
    """
    num_replicates = len(gradients)
    if num_replicates < 3:
        return float("nan")

    left_out = []
    for replicate in range(num_replicates):
        others = torch.cat([gradients[:replicate], gradients[replicate + 1 :]])
        left_out.append(snr(others))
    if not all(map(isfinite, left_out)):
        return 0.0

    values = torch.tensor(left_out, dtype=torch.float64)
    return sqrt((num_replicates - 1) * float(values.var(correction=0)))
