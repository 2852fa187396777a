"""The contract of a meta-gradient estimator."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.meta.estimators.population import Launch, Population, State
from learned_opt.tree import Tree


class MetaGradient(NamedTuple):
    """One estimate of the gradient of the meta-loss.

    Args:
        gradient: shaped like theta.
        meta_loss: scalar, the mean meta-loss that the estimate saw.
        num_inner_steps: inner steps that it took, all chains together.
        finite: ``(R, N)`` bool, R chains of each of N tasks; a task of which one chain is not finite was left out and
            restarts at the next estimate.
        parts: the estimate of each task, where this is the mean of several.
    """

    gradient: Tree
    meta_loss: Tensor
    num_inner_steps: int
    finite: Tensor
    parts: Mapping[str, "MetaGradient"] = MappingProxyType({})

    @property
    def num_nonfinite(self) -> Tensor:
        """Tasks that were left out."""
        return (~self.finite.all(0)).sum()


class GradientEstimator(ABC):
    """Estimates the meta-gradient from unrolls of inner training; pure, state goes in and comes out."""

    num_tasks: int
    unroll_length: int
    population: Population  # the chains that it runs
    backpropagates: bool = False  # whether it takes gradients through the unroll

    @property
    def num_inner_steps(self) -> int:
        """Inner steps of one estimate, all chains together."""
        return self.population.num_inner_steps

    @abstractmethod
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        """Chains and accumulators before the first estimate."""

    @abstractmethod
    def launches(self, theta: Tree, state: State, generator: torch.Generator) -> dict[str, Launch]:
        """What ``estimate`` starts its unrolls from, given the same arguments: by the keys of ``parts``.

        Where there are none, the only key is the empty string.
        """

    @abstractmethod
    def estimate(self, theta: Tree, state: State, generator: torch.Generator) -> tuple[MetaGradient, State]:
        """One estimate.

        Args:
            theta: meta-parameters.
            state: the state after the estimate before.
            generator: CPU generator, the only source of randomness; every draw is keyed by it and the chain.

        Returns:
            tuple[MetaGradient, State]: the estimate and the next state.
        """
