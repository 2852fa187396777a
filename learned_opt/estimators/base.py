"""The contract of a meta-gradient estimator: two methods, and the estimate that they give.

Legend: N tasks that this process runs (pairs in evolution strategies), R chains of each,
M = R N chains, K inner steps of an unroll.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from learned_opt.core.tree import Tree

State = dict[str, Any]  # nested dicts of tensors, so that a checkpoint can hold it as it is


class MetaGradient(NamedTuple):
    """One estimate of the gradient of the meta-loss.

    Args:
        gradient: shaped like theta; where processes share the tasks, the estimate is the sum
            of their gradients.
        meta_loss: scalar, the mean meta-loss that the estimate saw, over the tasks of all
            processes.
        num_inner_steps: inner steps that it took, all chains of all processes together.
        finite: ``(R, N)`` bool, R chains of each of the N tasks of this process; a task of
            which one chain is not finite was left out and restarts at the next estimate.
        parts: the estimate of each task, where this is the mean of several.
        figures: what else the estimator has measured, scalars that training logs.
    """

    gradient: Tree
    meta_loss: Tensor
    num_inner_steps: int
    finite: Tensor
    parts: Mapping[str, "MetaGradient"] = MappingProxyType({})
    figures: Mapping[str, Tensor] = MappingProxyType({})

    @property
    def num_nonfinite(self) -> Tensor:
        """Number of tasks of this process that were left out, a scalar tensor."""
        return (~self.finite.all(0)).sum()


class GradientEstimator(ABC):
    """Estimates the meta-gradient from unrolls of inner training.

    It is pure: state goes in and state comes out. An estimator of your own needs no more than
    these two methods to train in one process; one that derives from ``SharedEstimator`` can
    also share its tasks with other processes and have its unrolls replayed.
    """

    @abstractmethod
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        """The state before the first estimate: running chains, accumulators.

        Args:
            theta: meta-parameters.
            generator: CPU generator, the only source of randomness.

        Returns:
            State: nested dicts of tensors.
        """

    @abstractmethod
    def estimate(
        self, theta: Tree, state: State, generator: torch.Generator
    ) -> tuple[MetaGradient, State]:
        """Estimate the meta-gradient once.

        Args:
            theta: meta-parameters.
            state: the state after the estimate before.
            generator: CPU generator, the only source of randomness; every draw is keyed by it
                and the chain.

        Returns:
            tuple[MetaGradient, State]: the estimate and the next state.
        """
