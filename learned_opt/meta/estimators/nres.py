"""Evolution strategies that keep a perturbation for several unrolls: PES keeps it for one, NRES for all."""

import torch

from learned_opt import tree
from learned_opt.meta.estimators.base import GradientEstimator, MetaGradient, State
from learned_opt.meta.estimators.perturb import AntitheticPairs, antithetic_estimate, where_pairs
from learned_opt.meta.truncation import Truncation
from learned_opt.meta.unroll import Unroll
from learned_opt.rng import draw_key
from learned_opt.tree import Tree


class NRES(GradientEstimator):
    """``g = mean xi (L+ - L-) / (2 sigma^2)``, xi the sum of the different eps that the pair has had since its restart.

    With one eps for the whole horizon this is noise-reuse ES, also published as ES-Single: unbiased for the meta-loss
    smoothed by one perturbation. Its variance is below that of PES where the unrolls pull theta in different
    directions, and above it where they pull alike. With a new eps every ``noise_period`` unrolls it is generalised
    PES, with 1 it is PES.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: antithetic pairs.
        unroll_length: inner steps per estimate.
        sigma: standard deviation of eps.
        noise_period: unrolls that share an eps; None for all until the restart.
        meta_loss: what one unroll counts as: ``mean``, ``final`` or ``min`` of its losses.

    Source: Li et al. 2023 (arXiv 2304.12180), algorithms 1 and 2; Vicol 2023 (ES-Single).
    """

    def __init__(
        self,
        unroll: Unroll,
        truncation: Truncation,
        num_tasks: int,
        unroll_length: int,
        sigma: float,
        noise_period: int | None = None,
        meta_loss: str = "mean",
    ) -> None:
        if noise_period is not None and noise_period < 1:
            raise ValueError(f"noise_period must be at least 1 or null, got {noise_period}.")
        self.pairs = AntitheticPairs(unroll, truncation, num_tasks, unroll_length, sigma, meta_loss)
        self.num_tasks, self.unroll_length, self.noise_period = num_tasks, unroll_length, noise_period
        self.num_inner_steps = self.pairs.population.num_inner_steps

    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        """Fresh chains; ``age`` counts the unrolls since the restart, ``(N,)``."""
        zeros = self.pairs.zeros(theta)
        age = torch.zeros(self.num_tasks, dtype=torch.int64)
        return self.pairs.population.init_state(generator) | {"eps": zeros, "accumulator": zeros, "age": age}

    @torch.no_grad()
    def estimate(self, theta: Tree, state: State, generator: torch.Generator) -> tuple[MetaGradient, State]:
        """One estimate, see ``GradientEstimator.estimate``."""
        root = draw_key(generator)
        pairs, restarted = self.pairs.population.restart(state, root)
        age = state["age"].where(~restarted, 0)
        renew = age == 0 if self.noise_period is None else age % self.noise_period == 0
        eps = where_pairs(renew, self.pairs.perturbations(theta, root), state["eps"])
        added = where_pairs(renew, tree.add(state["accumulator"], eps), state["accumulator"])
        accumulator = where_pairs(age == 0, eps, added)
        losses, pairs = self.pairs.run(theta, eps, pairs, root)
        noise = {"eps": eps, "accumulator": accumulator, "age": age + 1}
        return antithetic_estimate(accumulator, losses, self.pairs), pairs | noise
