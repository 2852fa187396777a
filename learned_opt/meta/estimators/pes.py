"""Persistent evolution strategies: unbiased over the whole horizon from short unrolls."""

import torch

from learned_opt import tree
from learned_opt.meta.estimators.base import GradientEstimator, MetaGradient, State
from learned_opt.meta.estimators.perturb import AntitheticPairs, antithetic_estimate, where_pairs
from learned_opt.meta.truncation import Truncation
from learned_opt.meta.unroll import Unroll
from learned_opt.rng import draw_key
from learned_opt.tree import Tree


class PES(GradientEstimator):
    """``g = mean xi (L+ - L-) / (2 sigma^2)`` with xi the sum of all eps of the pair since its restart.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: antithetic pairs.
        unroll_length: inner steps per estimate.
        sigma: standard deviation of eps.
        meta_loss: what one unroll counts as: ``mean``, ``final`` or ``min`` of its losses.

    Source: Vicol et al. 2021 (arXiv 2112.13835), algorithm 2. The loss of an estimate is the mean over one unroll, so
    the expectation over staggered chains is the gradient of the mean loss over the horizon (for ``mean``).
    """

    def __init__(
        self,
        unroll: Unroll,
        truncation: Truncation,
        num_tasks: int,
        unroll_length: int,
        sigma: float,
        meta_loss: str = "mean",
    ) -> None:
        self.pairs = AntitheticPairs(unroll, truncation, num_tasks, unroll_length, sigma, meta_loss)
        self.num_tasks, self.unroll_length = num_tasks, unroll_length
        self.num_inner_steps = self.pairs.population.num_inner_steps

    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        """Fresh chains and zero accumulators ``(N, *shape)``."""
        return self.pairs.population.init_state(generator) | {"accumulator": self.pairs.zeros(theta)}

    @torch.no_grad()
    def estimate(self, theta: Tree, state: State, generator: torch.Generator) -> tuple[MetaGradient, State]:
        """One estimate, see ``GradientEstimator.estimate``."""
        root = draw_key(generator)
        pairs, restarted = self.pairs.population.restart(state, root)
        eps = self.pairs.perturbations(theta, root)
        accumulator = where_pairs(restarted, eps, tree.add(state["accumulator"], eps))
        losses, pairs = self.pairs.run(theta, eps, pairs, root)
        return antithetic_estimate(accumulator, losses, self.pairs), pairs | {"accumulator": accumulator}
