"""The contract of a meta-gradient estimator."""

from abc import ABC, abstractmethod
from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.meta.estimators.population import Population, State
from learned_opt.tree import Tree


class MetaGradient(NamedTuple):
    """One estimate of the gradient of the meta-loss.

    Args:
        gradient: shaped like theta.
        meta_loss: scalar, the mean training loss that the estimate saw.
        num_inner_steps: inner steps that it took, all chains together.
        num_nonfinite: pairs that were left out and restarted because a loss was not finite.
    """

    gradient: Tree
    meta_loss: Tensor
    num_inner_steps: int
    num_nonfinite: Tensor


class GradientEstimator(ABC):
    """Estimates the meta-gradient from unrolls of inner training; pure, state goes in and comes out."""

    num_tasks: int
    unroll_length: int
    population: Population  # the chains that it runs

    @property
    def num_inner_steps(self) -> int:
        """Inner steps of one estimate, all chains together."""
        return self.population.num_inner_steps

    @abstractmethod
    def init_state(self, theta: Tree, generator: torch.Generator) -> State:
        """Chains and accumulators before the first estimate."""

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
