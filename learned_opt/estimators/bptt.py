"""Backpropagation through inner training.

Legend: N tasks, of one chain each, K inner steps of an unroll.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.rng import draw_key
from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.base import MetaGradient, State
from learned_opt.estimators.chain_estimator import ChainEstimator
from learned_opt.estimators.chain_gradients import (
    chain_gradients,
    check_unroll_length,
    cost_of_gradient,
)
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.population import Population, UnrollStart
from learned_opt.inner.truncation import Truncation
from learned_opt.inner.unroll import Unroll


@dataclass(eq=False)
class BPTT(ChainEstimator):
    """Exact gradient of the mean meta-loss over one unroll.

    It is blind to what theta did before the unroll. With ``unroll_length`` equal to the horizon
    this is full BPTT, the exact gradient. A chain whose loss or gradient is not finite is left
    out, counted, and restarted.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: chains.
        unroll_length: inner steps K per estimate.
        meta_loss: the number that an unroll counts as.
        remat: compute every inner step twice and keep the chains between steps only, so that
            long unrolls fit; compiled steps always do.

    Raises:
        ValueError: a value is out of its range.
    """

    unroll: Unroll
    truncation: Truncation
    num_tasks: int
    unroll_length: int
    meta_loss: MetaLoss = field(default_factory=MetaLoss)
    remat: bool = False

    def __post_init__(self) -> None:
        check_unroll_length(self.unroll_length)
        self.population = Population(
            self.unroll, self.truncation, self.num_tasks, self.unroll_length, 1, self.meta_loss
        )

    @property
    @override
    def backpropagates(self) -> bool:
        return True

    @property
    @override
    def num_gradients(self) -> int:
        return cost_of_gradient(self.remat) * self.num_inner_steps

    @override
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        return self.population.init_state(generator)

    @override
    def unroll_start(self, theta: Tree, state: State, generator: torch.Generator) -> UnrollStart:
        root = draw_key(generator)
        restarted, _ = self.population.restart(state, root)
        tasks = self.population.tasks

        # each chain has its own theta, so that its gradient can be told apart
        copies = tree_map(lambda leaf: leaf.detach().repeat(len(tasks), *[1] * leaf.ndim), theta)
        return UnrollStart(copies, restarted, root, tasks)

    @override
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        start = self.unroll_start(theta, state, generator)
        losses, gradients, are_finite, after = chain_gradients(self.population, start, self.remat)
        finite = (are_finite & losses.isfinite())[0]  # (N,)

        count, meta_loss = self.population.mean(losses[0], finite)
        means = tree_map(lambda leaf: _sum_over(leaf, finite) / count, gradients)
        estimate = MetaGradient(
            gradient=means,
            meta_loss=meta_loss,
            num_inner_steps=self.num_inner_steps,
            finite=finite[None],
        )
        return estimate, self.population.advance(after, finite)


def _sum_over(leaf: Tensor, finite: Tensor) -> Tensor:
    """Sum of the finite rows of ``(N, *shape)``."""
    column = finite.reshape(-1, *[1] * (leaf.ndim - 1))
    return leaf.where(column, 0).sum(0)
