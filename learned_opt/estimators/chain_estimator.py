"""Estimators that keep one population of chains running.

Legend: N tasks that this process runs (pairs in evolution strategies), M chains.
"""

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.estimators.base import State
from learned_opt.estimators.population import Population, UnrollStart
from learned_opt.estimators.share import Share, join_tasks, select_tasks
from learned_opt.estimators.shared_estimator import SharedEstimator


class ChainEstimator(SharedEstimator):
    """An estimator with one unroll, that of all chains of its population.

    All tensors of its state have the rows of a population's: ``(R N, ...)`` or ``(N, ...)``.

    Attributes:
        population: the chains that it runs.
    """

    population: Population

    @property
    @override
    def num_inner_steps(self) -> int:
        return self.population.num_inner_steps

    @override
    def shared(self, share: Share) -> Self:
        other = copy.copy(self)
        other.population = self.population.shared(share)
        return other

    @override
    def select(self, state: State) -> State:
        return select_tasks(state, self.population.tasks, self.num_tasks)

    @override
    def join(self, states: Sequence[State]) -> State:
        num_ranks = self.population.share.num_ranks
        sizes = [len(Share(rank, num_ranks).tasks(self.num_tasks)) for rank in range(num_ranks)]
        return join_tasks(states, sizes)

    @override
    def unroll_starts(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> dict[str, UnrollStart]:
        return {"": self.unroll_start(theta, state, generator)}

    @abstractmethod
    def unroll_start(self, theta: Tree, state: State, generator: torch.Generator) -> UnrollStart:
        """What the only unroll of ``estimate`` starts from when it gets the same arguments."""
