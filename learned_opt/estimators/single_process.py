"""Estimators of a user's own, with the two methods of the contract, in meta-training.

Legend: N tasks, K inner steps of an unroll.
"""

from collections.abc import Sequence
from typing import Self

import torch
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.estimators.base import GradientEstimator, MetaGradient, State
from learned_opt.estimators.population import UnrollStart
from learned_opt.estimators.share import Share
from learned_opt.estimators.shared_estimator import SharedEstimator


class SingleProcess(SharedEstimator):
    """Runs an estimator that does not know of other processes, in one process alone.

    Its unrolls cannot be replayed. ``num_tasks``, ``unroll_length``, ``num_inner_steps`` and
    ``num_gradients`` are the estimator's attributes of these names; one that has none counts as
    one task of one inner step, which only figures of speed and cost are read from.

    Args:
        estimator: has ``init_state`` and ``estimate``.
    """

    def __init__(self, estimator: GradientEstimator) -> None:
        self.estimator = estimator
        self.num_tasks = getattr(estimator, "num_tasks", 1)
        self.unroll_length = getattr(estimator, "unroll_length", 1)

    @property
    @override
    def num_inner_steps(self) -> int:
        return getattr(self.estimator, "num_inner_steps", self.num_tasks * self.unroll_length)

    @property
    @override
    def num_gradients(self) -> int:
        return getattr(self.estimator, "num_gradients", self.num_inner_steps)

    @override
    def shared(self, share: Share) -> Self:
        if share.num_ranks > 1:
            raise ValueError(
                f"{type(self.estimator).__name__} runs in one process, got {share.num_ranks}; "
                "derive it from SharedEstimator to share its tasks."
            )
        return self

    @override
    def select(self, state: State) -> State:
        return state

    @override
    def join(self, states: Sequence[State]) -> State:
        (state,) = states
        return state

    @override
    def unroll_starts(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> dict[str, UnrollStart]:
        return {}

    @override
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        return self.estimator.init_state(theta, generator)

    @override
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        return self.estimator.estimate(theta, state, generator)


def as_shared(estimator: GradientEstimator) -> SharedEstimator:
    """The estimator itself where it can share its tasks, else one that runs it in one process.

    Args:
        estimator: any estimator.

    Returns:
        SharedEstimator: what meta-training runs.
    """
    return estimator if isinstance(estimator, SharedEstimator) else SingleProcess(estimator)
