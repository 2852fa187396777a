"""Estimators whose tasks several processes (ranks) can share, and whose unrolls can be replayed.

Legend: N tasks that this process runs (pairs in evolution strategies), M chains.
"""

from abc import abstractmethod
from collections.abc import Sequence
from typing import Self

import torch

from learned_opt.core.tree import Tree
from learned_opt.estimators.base import GradientEstimator, State
from learned_opt.estimators.population import UnrollStart
from learned_opt.estimators.share import Share


class SharedEstimator(GradientEstimator):
    """What meta-training asks of an estimator beside the estimates.

    Attributes:
        num_tasks: tasks of all processes.
        unroll_length: inner steps K of an estimate.
    """

    num_tasks: int
    unroll_length: int

    @property
    def backpropagates(self) -> bool:
        """Whether it takes gradients through the unroll."""
        return False

    @property
    @abstractmethod
    def num_inner_steps(self) -> int:
        """Inner steps of one estimate, all chains of all processes together."""

    @property
    def num_gradients(self) -> int:
        """What one estimate costs, in evaluations of inner gradients, all processes together.

        An inner step evaluates one; a backward pass through the step counts as what it costs.
        """
        return self.num_inner_steps

    @abstractmethod
    def shared(self, share: Share) -> Self:
        """The same estimator, of whose tasks this process runs its share."""

    @abstractmethod
    def select(self, state: State) -> State:
        """This process's rows of the state of all tasks."""

    @abstractmethod
    def join(self, states: Sequence[State]) -> State:
        """The state of all tasks from those of all processes, by rank."""

    @abstractmethod
    def unroll_starts(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> dict[str, UnrollStart]:
        """What ``estimate`` starts its unrolls from when it gets the same arguments.

        Args:
            theta: as of ``estimate``.
            state: as of ``estimate``.
            generator: as of ``estimate``.

        Returns:
            dict[str, UnrollStart]: by the keys of ``MetaGradient.parts``. Where an estimate has
            no parts, the only key is the empty string. Without entries there is no replay.
        """
