"""Antithetic pairs: what the evolution strategies share.

A pair is two chains, run with theta + eps and theta - eps on the same task, initial parameters
and batches.

Legend: N pairs, M = 2 N chains, K inner steps of an unroll.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.checks import check_between, check_positive
from learned_opt.core.rng import draw_key, generator
from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.base import MetaGradient, State
from learned_opt.estimators.chain_estimator import ChainEstimator
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.perturbation import Draw, Perturbation
from learned_opt.estimators.population import Population, UnrollStart
from learned_opt.inner.truncation import Truncation
from learned_opt.inner.unroll import Unroll

# below, theta + eps rounds to theta in float32; above, nothing of theta is left in it
SMALLEST_SIGMA = 1e-6
LARGEST_SIGMA = 1e3


class Noise(NamedTuple):
    """What perturbs the pairs in one unroll; leaves ``(N, *shape)``.

    Args:
        eps: added to theta in the plus chains, subtracted in the minus chains.
        direction: the factor of the difference of the losses.
        memory: what the estimator's state keeps for the next unroll.
    """

    eps: Tree
    direction: Tree
    memory: State


@dataclass(eq=False)
class AntitheticES(ChainEstimator):
    """``g = mean direction (L(theta + eps) - L(theta - eps)) / (2 sigma^2)``.

    Subclasses choose eps and direction. The mean is over the pairs of which both chains stay
    finite; the others restart at the next estimate.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: antithetic pairs N.
        unroll_length: inner steps K per estimate.
        sigma: standard deviation of eps, before the factors of ``perturbation``.
        meta_loss: the number that an unroll counts as.
        perturbation: distribution of eps.

    Raises:
        ValueError: a value is out of its range.
    """

    unroll: Unroll
    truncation: Truncation
    num_tasks: int
    unroll_length: int
    sigma: float
    meta_loss: MetaLoss = field(default_factory=MetaLoss)
    perturbation: Perturbation = field(default_factory=Perturbation)

    def __post_init__(self) -> None:
        check_positive(sigma=self.sigma)
        check_between(SMALLEST_SIGMA, LARGEST_SIGMA, sigma=self.sigma)
        self.perturbation.check(dict(self.unroll.optimizer.named_parameters()))

        self.population = Population(
            self.unroll, self.truncation, self.num_tasks, self.unroll_length, 2, self.meta_loss
        )

    @override
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        return self.population.init_state(generator) | self.init_memory(theta)

    @override
    def unroll_start(self, theta: Tree, state: State, generator: torch.Generator) -> UnrollStart:
        start, _ = self._perturbed_start(theta, state, generator)
        return start

    @override
    @torch.no_grad()
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        start, noise = self._perturbed_start(theta, state, generator)
        losses, after = self.population.run(start)
        estimate = self._estimate(noise.direction, losses)

        advanced = self.population.advance(after, estimate.finite.all(0))
        return estimate, advanced | noise.memory

    @abstractmethod
    def init_memory(self, theta: Tree) -> State:
        """What the state holds beside the chains before the first estimate."""

    @abstractmethod
    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        """Choose the perturbations of one unroll.

        Args:
            drawn: fresh draws.
            state: of the estimate before.
            restarted: the pairs that have just restarted, ``(N,)`` bool.
        """

    def zeros(self, theta: Tree) -> Tree:
        """Zero for every pair: leaves ``(N, *shape)``."""
        num_pairs = len(self.population.tasks)
        return tree_map(lambda leaf: leaf.detach().new_zeros(num_pairs, *leaf.shape), theta)

    @torch.no_grad()
    def _perturbed_start(
        self, theta: Tree, state: State, source: torch.Generator
    ) -> tuple[UnrollStart, Noise]:
        """Where the unroll starts, the N plus chains before the N minus chains, and the noise."""
        root = draw_key(source)
        pairs, restarted = self.population.restart(state, root)

        sources = [generator(root, task, "eps") for task in self.population.tasks]
        drawn = self.perturbation.draw(theta, self.sigma, sources)
        noise = self.noise(drawn, state, restarted)

        both = tree_map(lambda t, e: torch.cat([t + e, t - e]), theta, noise.eps)  # (M, *shape)
        return UnrollStart(both, pairs, root, self.population.tasks), noise

    def _estimate(self, direction: Tree, losses: Tensor) -> MetaGradient:
        """This process's part of the mean over the finite pairs; losses ``(2, N)``."""
        finite = losses.isfinite().all(0)  # (N,)
        count, meta_loss = self.population.mean(losses.mean(0), finite)
        difference = torch.where(finite, losses[0] - losses[1], 0)
        weight = difference / (2 * self.sigma**2 * count)

        return MetaGradient(
            gradient=tree_map(lambda leaf: torch.tensordot(weight.to(leaf), leaf, 1), direction),
            meta_loss=meta_loss,
            num_inner_steps=self.num_inner_steps,
            finite=losses.isfinite(),
        )


def where_pairs(condition: Tensor, left: Tree, right: Tree) -> Tree:
    """``left`` for the pairs for which a condition holds, ``right`` for the others.

    Args:
        condition: ``(N,)`` bool.
        left: leaves ``(N, *shape)``.
        right: leaves ``(N, *shape)``.
    """

    def choose(a: Tensor, b: Tensor) -> Tensor:
        column = condition.to(a.device).reshape(-1, *[1] * (a.ndim - 1))
        return torch.where(column, a, b)

    return tree_map(choose, left, right)
