"""Gradients by backpropagation as control variates of evolution strategies.

Beside each antithetic pair a third chain runs with theta itself. The gradient p of its meta-loss
by theta, through the same unroll, predicts the difference ``D = L(theta + eps) - L(theta - eps)``
of the pair as ``q = 2 eps . p``. As p is independent of eps, ``E[q score / (2 sigma^2)] = p``, and

    g = (D - c q) direction / (2 sigma^2) + c p

has the mean of ``D direction / (2 sigma^2)`` for every c that is independent of eps. The variance
is ``1 - rho^2`` times as large for the best c, where rho is the correlation of D and q.

Legend: N pairs that this process runs, W windows of unrolls since the restart.
"""

from dataclasses import dataclass
from math import log2
from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.core.checks import check_at_least, check_between
from learned_opt.estimators.base import State
from learned_opt.estimators.share import Share

# windows of unrolls 0, 1, 2 to 3, 4 to 7, ... since the restart; the last holds all later ones
NUM_WINDOWS = 12
PRODUCTS = ("q^2", "q D", "D^2", "(q D)^2")  # sums of these, over pairs and estimates, make a fit


class Fit(NamedTuple):
    """What a control variate does in one unroll.

    Args:
        coefficients: c of every pair, ``(N,)``; 0 for one that counts nothing.
        explained: c q of every pair, ``(N,)``.
        memory: what the estimator's state keeps for the next fit.
        figures: scalars to log.
    """

    coefficients: Tensor
    explained: Tensor
    memory: State
    figures: dict[str, Tensor]


@dataclass(frozen=True)
class ControlVariate:
    """How much of the gradient of an unperturbed chain goes into the estimate of a pair.

    A fitted c is the least-squares coefficient ``sum q D / sum q^2`` over the pairs and estimates
    so far, the older with less weight, apart for the unrolls 0, 1, 2 to 3, 4 to 7, ... since the
    restart: gradients predict early unrolls, not those that chaos has reached. The fit of a pair
    leaves out all that this pair has measured since ever, for its eps may be that of an earlier
    unroll; so the estimate has no bias. Where ``sum q D`` is not significant, less than
    ``significance`` times its standard error ``sqrt(sum (q D)^2)``, which outliers widen, c is 0.

    Args:
        coefficient: c; None for a fitted one. With 1 in PES this is PES+A without its bias.
        decay: of the weights of a fit, for each estimate.
        significance: standard errors of ``sum q D`` below which a fitted c is 0.
        remat: the backward pass computes every inner step again, so that long unrolls fit;
            compiled steps always do.

    Raises:
        ValueError: a value is out of its range.

    Source: control variates as in Asmussen and Glynn 2007, section V.2; PES+A in Vicol et al.
    2021 (arXiv 2112.13835), appendix.
    """

    coefficient: float | None = None
    decay: float = 0.95
    significance: float = 2.0
    remat: bool = True

    def __post_init__(self) -> None:
        check_between(0, 1, decay=self.decay)
        check_at_least(0, significance=self.significance)
        if self.coefficient is not None:
            check_at_least(0, coefficient=self.coefficient)

    def init_memory(self, num_pairs: int) -> State:
        """What the state holds before the first fit.

        Args:
            num_pairs: N.
        """
        sums = torch.zeros(num_pairs, NUM_WINDOWS, len(PRODUCTS), dtype=torch.float64)
        return {"sums": sums, "age": torch.zeros(num_pairs, dtype=torch.int64)}

    def fit(
        self, memory: State, restarted: Tensor, actual: Tensor, predicted: Tensor, share: Share
    ) -> Fit:
        """Choose the coefficients of one unroll.

        Args:
            memory: after the fit before.
            restarted: the pairs that have just restarted, ``(N,)`` bool.
            actual: D of every pair, ``(N,)``, 0 where a pair counts nothing.
            predicted: q of every pair, ``(N,)``.
            share: of this process in the pairs; every rank must call this.
        """
        age = memory["age"].where(~restarted, 0)
        window = torch.tensor([_window_of(each) for each in age.tolist()])

        measured = _products(predicted.double().cpu(), actual.double().cpu())  # (N, 4)
        index = window[:, None, None].expand(-1, 1, len(PRODUCTS))
        # the last are squares of summands, whose weights are squared, too
        decays = torch.tensor([self.decay] * 3 + [self.decay**2], dtype=torch.float64)
        sums = (decays * memory["sums"]).scatter_add(1, index, measured[:, None])
        total = share.total(sums.sum(0).to(actual.device)).cpu()  # (W, 4)

        if self.coefficient is None:
            of_others = (total - sums).gather(1, index)[:, 0]  # (N, 4)
            coefficients = self._fitted(of_others)
        else:
            coefficients = torch.full((len(age),), self.coefficient, dtype=torch.float64)

        # a pair that counts nothing predicts nothing, and its gradient counts nothing either
        coefficients = coefficients.to(actual).where(predicted != 0, 0)
        return Fit(
            coefficients=coefficients,
            explained=coefficients * predicted,
            memory={"sums": sums, "age": age + 1},
            figures={"control_rho": self._correlation(total).to(actual)},
        )

    def _fitted(self, sums: Tensor) -> Tensor:
        """Least-squares coefficients from sums ``(..., 4)``, 0 where they are not significant."""
        q_square, product, _, product_square = sums.unbind(-1)
        is_significant = product.abs() > self.significance * product_square.sqrt()
        is_usable = is_significant & (q_square > 0)
        return torch.where(is_usable, product / q_square.where(is_usable, 1), 0)

    def _correlation(self, total: Tensor) -> Tensor:
        """Rho: the root of the share of ``sum D^2`` that the fits of all windows explain."""
        _, product, d_square, _ = total.unbind(-1)  # (W,) each
        explained = self._fitted(total) * product
        return (explained.sum() / d_square.sum().clamp(min=1e-300)).clamp(min=0).sqrt()


def _products(predicted: Tensor, actual: Tensor) -> Tensor:
    """The summands of a fit, ``(N, 4)``, 0 where one of them is not finite."""
    q_square = predicted.square()
    product = predicted * actual
    products = torch.stack([q_square, product, actual.square(), product.square()], 1)
    return products.where(products.isfinite().all(1, keepdim=True), 0)


def _window_of(age: int) -> int:
    """The window of an unroll that so many unrolls of the pair have gone before."""
    return 0 if age == 0 else min(1 + int(log2(age)), NUM_WINDOWS - 1)
