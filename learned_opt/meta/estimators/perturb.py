"""Antithetic pairs: what the evolution strategies share.

A pair is two chains, run with theta + eps and theta - eps on the same task, initial parameters and batches.

Legend: N pairs, K unroll length.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.meta.estimators.base import MetaGradient, State
from learned_opt.meta.estimators.population import Population
from learned_opt.meta.truncation import Truncation
from learned_opt.meta.unroll import Unroll
from learned_opt.rng import generator
from learned_opt.tree import Tree, tree_map


class PairLosses(NamedTuple):
    """Meta-losses ``(N,)`` of one unroll at theta + eps and theta - eps."""

    plus: Tensor
    minus: Tensor

    @property
    def finite(self) -> Tensor:
        """Pairs of which both losses are finite, ``(N,)`` bool."""
        return self.plus.isfinite() & self.minus.isfinite()


class AntitheticPairs:
    """Draws perturbations and runs a population of pairs with them.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: pairs N.
        unroll_length: inner steps K per estimate.
        sigma: standard deviation of eps.
        meta_loss: what one unroll counts as, see ``Population``.
    """

    def __init__(
        self, unroll: Unroll, truncation: Truncation, num_tasks: int, unroll_length: int, sigma: float, meta_loss: str
    ) -> None:
        if sigma <= 0:
            raise ValueError(f"sigma must be positive, got {sigma}.")
        self.population = Population(unroll, truncation, num_tasks, unroll_length, 2, meta_loss)
        self.num_tasks, self.sigma = num_tasks, sigma

    def perturbations(self, theta: Tree, root: int) -> Tree:
        """Eps ~ N(0, sigma^2), leaves ``(N, *shape)``, one generator for each pair."""
        sources = [generator(root, i, "eps") for i in range(self.num_tasks)]

        def draw(leaf: Tensor) -> Tensor:
            normal = torch.stack([torch.randn(leaf.shape, generator=source) for source in sources])
            return (self.sigma * normal).to(leaf)

        return tree_map(draw, theta)

    def run(self, theta: Tree, eps: Tree, state: State, root: int) -> tuple[PairLosses, State]:
        """Unroll all pairs by K steps; a pair with a loss that is not finite restarts at the next estimate."""
        both = tree_map(lambda t, e: torch.cat([t + e, t - e]), theta, eps)
        losses, chains = self.population.run(both, state, root)
        pairs = PairLosses(*losses)
        return pairs, self.population.advance(state, chains, pairs.finite)

    def zeros(self, theta: Tree) -> Tree:
        """Zero for every pair: leaves ``(N, *shape)``."""
        return tree_map(lambda leaf: leaf.detach().new_zeros(self.num_tasks, *leaf.shape), theta)


def where_pairs(which: Tensor, left: Tree, right: Tree) -> Tree:
    """``left`` for the pairs of ``which``, ``(N,)`` bool, ``right`` for the others; leaves ``(N, *shape)``."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(which.to(a.device).reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return tree_map(choose, left, right)


def antithetic_estimate(direction: Tree, losses: PairLosses, pairs: AntitheticPairs) -> MetaGradient:
    """``mean_n direction_n (L+_n - L-_n) / (2 sigma^2)`` over the pairs with finite losses.

    Args:
        direction: leaves ``(N, *shape)``: eps for ES, the sum of eps since the restart for PES.
        losses: losses of the pairs.
        pairs: what ran them.
    """
    finite, count = losses.finite, losses.finite.sum().clamp(min=1)
    weight = torch.where(finite, losses.plus - losses.minus, 0) / (2 * pairs.sigma**2 * count)
    meta_loss = torch.where(finite, losses.plus + losses.minus, 0).sum() / (2 * count)
    return MetaGradient(
        gradient=tree_map(lambda leaf: torch.tensordot(weight.to(leaf), leaf, 1), direction),
        meta_loss=torch.where(finite.any(), meta_loss, torch.nan),
        num_inner_steps=pairs.population.num_inner_steps,
        num_nonfinite=(~finite).sum(),
    )
