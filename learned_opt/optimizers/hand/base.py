"""The contract of an update rule, and how its hyper-parameters are stored."""

from abc import ABC, abstractmethod
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

RuleState = dict[str, Tensor]


class StepInfo(NamedTuple):
    """Where the training is.

    Args:
        step: int64 scalar, 1 at the first update.
        lr: learning rate of this step, after the schedule.
    """

    step: Tensor
    lr: Tensor


class Rule(nn.Module, ABC):
    """How one parameter tensor moves; pure. Its hyper-parameters are part of theta."""

    @abstractmethod
    def init_state(self, param: Tensor) -> RuleState:
        """State for a fresh parameter."""

    @abstractmethod
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """One step.

        Args:
            grad: gradient ``(*shape,)``.
            state: state of the step before.
            param: parameter ``(*shape,)``.
            info: step and learning rate.

        Returns:
            tuple[Tensor, RuleState]: the update, which is ADDED to the parameter, and the next state.
        """


def log_parameter(name: str, value: float) -> nn.Parameter:
    """A positive hyper-parameter, stored as its logarithm.

    Raises:
        ValueError: it is not positive.
    """
    if value <= 0:
        raise ValueError(f"{name} must be positive, got {value}.")
    return nn.Parameter(torch.tensor(log(value)))


def logit_parameter(name: str, value: float) -> nn.Parameter:
    """A hyper-parameter between 0 and 1, stored as its logit.

    Raises:
        ValueError: it does not lie between 0 and 1.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name} must lie between 0 and 1, got {value}.")
    return nn.Parameter(torch.tensor(log(value / (1 - value))))


def root(square: Tensor) -> Tensor:
    """Square root whose derivative at 0 is finite: weights that never had a gradient do not spoil a meta-gradient."""
    return torch.sqrt(square + 1e-30)
