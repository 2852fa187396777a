"""Evolution strategies over one unroll, antithetic.

With ``unroll_length`` equal to the horizon this is full ES, unbiased for the smoothed meta-loss. With a shorter unroll
it is truncated ES: cheap, but blind to how theta moved the chain before the unroll began.
"""

import torch

from learned_opt.meta.estimators.base import GradientEstimator, MetaGradient, State
from learned_opt.meta.estimators.perturb import AntitheticPairs, antithetic_estimate
from learned_opt.meta.truncation import Truncation
from learned_opt.meta.unroll import Unroll
from learned_opt.rng import draw_key
from learned_opt.tree import Tree


class ES(GradientEstimator):
    """``g = mean eps (L(theta + eps) - L(theta - eps)) / (2 sigma^2)``.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: antithetic pairs.
        unroll_length: inner steps per estimate.
        sigma: standard deviation of eps.
        meta_loss: what one unroll counts as: ``mean``, ``final`` or ``min`` of its losses.

    Source: Salimans et al. 2017 (arXiv 1703.03864), antithetic pairs; truncated as in Metz et al. 2019 (1810.10180).
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
        """Fresh chains."""
        return self.pairs.population.init_state(generator)

    @torch.no_grad()
    def estimate(self, theta: Tree, state: State, generator: torch.Generator) -> tuple[MetaGradient, State]:
        """One estimate, see ``GradientEstimator.estimate``."""
        root = draw_key(generator)
        state, _ = self.pairs.population.restart(state, root)
        eps = self.pairs.perturbations(theta, root)
        losses, state = self.pairs.run(theta, eps, state, root)
        return antithetic_estimate(eps, losses, self.pairs), state
