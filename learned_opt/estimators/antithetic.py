"""Antithetic pairs: what the evolution strategies share.

A pair is two chains, run with theta + eps and theta - eps on the same task, initial parameters and batches.

Legend: N pairs, K unroll length.
"""

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.core.rng import draw_key, generator
from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.base import GradientEstimator, Launch, MetaGradient, State
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.perturbation import Draw, Perturbation
from learned_opt.estimators.population import Population
from learned_opt.inner.truncation import Truncation
from learned_opt.inner.unroll import Unroll


class Noise(NamedTuple):
    """What perturbs the pairs in one unroll; leaves ``(N, *shape)``.

    Args:
        eps: added to theta in the plus chains, subtracted in the minus chains.
        direction: what the difference of the losses is multiplied by.
        memory: what the estimator's state keeps for the next unroll.
    """

    eps: Tree
    direction: Tree
    memory: State


@dataclass(eq=False)
class AntitheticES(GradientEstimator):
    """``g = mean direction (L(theta + eps) - L(theta - eps)) / (2 sigma^2)``; subclasses choose eps and direction.

    The mean is over the pairs of which both chains stay finite; the others restart at the next estimate.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: antithetic pairs N.
        unroll_length: inner steps K per estimate.
        sigma: standard deviation of eps, before the factors of ``perturbation``.
        meta_loss: what one unroll counts as.
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
        if self.sigma <= 0:
            raise ValueError(f"sigma must be positive, got {self.sigma}.")
        self.perturbation.check([name for name, _ in self.unroll.optimizer.named_parameters()])
        self.population = Population(
            self.unroll, self.truncation, self.num_tasks, self.unroll_length, 2, self.meta_loss
        )

    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        """Fresh chains and the memory of fresh noise."""
        return self.population.init_state(generator) | self.init_memory(theta)

    def launches(self, theta: Tree, state: State, generator: torch.Generator) -> dict[str, Launch]:
        """See ``GradientEstimator.launches``."""
        return {"": self.launch(theta, state, generator)}

    def launch(self, theta: Tree, state: State, generator: torch.Generator) -> Launch:
        """The only launch; the plus chains come first."""
        return self._launch(theta, state, generator)[0]

    @torch.no_grad()
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        """One estimate, see ``GradientEstimator.estimate``."""
        launch, noise = self._launch(theta, state, generator)
        losses, after = self.population.run(launch)
        estimate = self._estimate(noise.direction, losses)
        return estimate, self.population.advance(after, estimate.finite.all(0)) | noise.memory

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
        return tree_map(
            lambda leaf: leaf.detach().new_zeros(len(self.population.tasks), *leaf.shape), theta
        )

    @torch.no_grad()
    def _launch(self, theta: Tree, state: State, source: torch.Generator) -> tuple[Launch, Noise]:
        root = draw_key(source)
        pairs, restarted = self.population.restart(state, root)
        sources = [generator(root, i, "eps") for i in self.population.tasks]
        noise = self.noise(self.perturbation.draw(theta, self.sigma, sources), state, restarted)
        both = tree_map(lambda t, e: torch.cat([t + e, t - e]), theta, noise.eps)
        return Launch(both, pairs, root, self.population.tasks), noise

    def _estimate(self, direction: Tree, losses: Tensor) -> MetaGradient:
        """This process's part of the mean over the finite pairs; losses ``(2, N)``."""
        finite = losses.isfinite().all(0)
        count, meta_loss = self.population.mean(losses.mean(0), finite)
        weight = torch.where(finite, losses[0] - losses[1], 0) / (2 * self.sigma**2 * count)
        return MetaGradient(
            gradient=tree_map(lambda leaf: torch.tensordot(weight.to(leaf), leaf, 1), direction),
            meta_loss=meta_loss,
            num_inner_steps=self.num_inner_steps,
            finite=losses.isfinite(),
        )


def where_pairs(which: Tensor, left: Tree, right: Tree) -> Tree:
    """``left`` for the pairs of ``which``, ``(N,)`` bool, ``right`` for the others; leaves ``(N, *shape)``."""

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(which.to(a.device).reshape(-1, *[1] * (a.ndim - 1)), a, b)

    return tree_map(choose, left, right)
