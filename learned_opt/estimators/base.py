"""The contract of a meta-gradient estimator."""

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple, Self

import torch
from torch import Tensor

from learned_opt.core.tree import Tree
from learned_opt.estimators.population import Launch, Population, State
from learned_opt.estimators.share import Share, join_tasks, select_tasks


class MetaGradient(NamedTuple):
    """One estimate of the gradient of the meta-loss.

    Args:
        gradient: shaped like theta; where processes share the tasks, the estimate is the sum of their gradients.
        meta_loss: scalar, the mean meta-loss that the estimate saw, over the tasks of all processes.
        num_inner_steps: inner steps that it took, all chains of all processes together.
        finite: ``(R, N)`` bool, R chains of each of the N tasks of this process; a task of which one chain is not
            finite was left out and restarts at the next estimate.
        parts: the estimate of each task, where this is the mean of several.
    """

    gradient: Tree
    meta_loss: Tensor
    num_inner_steps: int
    finite: Tensor
    parts: Mapping[str, "MetaGradient"] = MappingProxyType({})

    @property
    def num_nonfinite(self) -> Tensor:
        """Tasks of this process that were left out."""
        return (~self.finite.all(0)).sum()


class GradientEstimator(ABC):
    """Estimates the meta-gradient from unrolls of inner training; pure, state goes in and comes out."""

    num_tasks: int  # of all processes
    unroll_length: int
    population: Population  # the chains that it runs
    backpropagates: bool = False  # whether it takes gradients through the unroll

    @property
    def num_inner_steps(self) -> int:
        """Inner steps of one estimate, all chains of all processes together."""
        return self.population.num_inner_steps

    def shared(self, share: Share) -> Self:
        """The same estimator, of whose tasks this process runs its share."""
        other = copy.copy(self)
        other.population = self.population.shared(share)
        return other

    def select(self, state: State) -> State:
        """This process's rows of the state of all tasks."""
        return select_tasks(state, self.population.tasks, self.num_tasks)

    def join(self, states: Sequence[State]) -> State:
        """The state of all tasks from those of all processes, by rank."""
        ranks = range(self.population.share.num_ranks)
        sizes = [len(Share(rank, len(ranks)).tasks(self.num_tasks)) for rank in ranks]
        return join_tasks(states, sizes)

    @abstractmethod
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        """Chains and accumulators before the first estimate."""

    @abstractmethod
    def launches(self, theta: Tree, state: State, generator: torch.Generator) -> dict[str, Launch]:
        """What ``estimate`` starts its unrolls from, given the same arguments: by the keys of ``parts``.

        Where there are none, the only key is the empty string.
        """

    @abstractmethod
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        """One estimate.

        Args:
            theta: meta-parameters.
            state: the state after the estimate before.
            generator: CPU generator, the only source of randomness; every draw is keyed by it and the chain.

        Returns:
            tuple[MetaGradient, State]: the estimate and the next state.
        """
