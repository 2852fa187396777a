"""The contract of an update rule, and how its hyper-parameters are stored."""

from abc import ABC, abstractmethod
from math import log
from typing import NamedTuple

import torch
from torch import Tensor, nn

from learned_opt.optimizers.base import check_between_0_and_1, check_positive
from learned_opt.optimizers.update_scale import ENTRY

RuleState = dict[str, Tensor]


class StepInfo(NamedTuple):
    """What a rule knows of a step beside gradient, state and parameter.

    Args:
        step: int64 scalar, 1 at the first update.
        lr: learning rate of this step, after the schedule.
    """

    step: Tensor
    lr: Tensor


class Rule(nn.Module, ABC):
    """How one parameter tensor moves; pure. Its hyper-parameters are part of theta.

    Attributes:
        update_scale: as of ``MetaOptimizer``.
    """

    update_scale: str = ENTRY

    @abstractmethod
    def init_state(self, param: Tensor) -> RuleState:
        """The state of a fresh parameter ``(*shape,)``: tensors by name, ``{}`` for none."""

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
            tuple[Tensor, RuleState]: the update, which is ADDED to the parameter, and the next
            state.
        """


def log_parameter(name: str, value: float) -> nn.Parameter:
    """A positive hyper-parameter, stored as its logarithm.

    Args:
        name: of the constructor's argument, for the message.
        value: where it starts.

    Raises:
        ValueError: it is not positive.
    """
    check_positive(**{name: value})
    return nn.Parameter(torch.tensor(log(value)))


def logit_parameter(name: str, value: float) -> nn.Parameter:
    """A hyper-parameter between 0 and 1, stored as its logit.

    Args:
        name: of the constructor's argument, for the message.
        value: where it starts.

    Raises:
        ValueError: it does not lie between 0 and 1.
    """
    check_between_0_and_1(**{name: value})
    return nn.Parameter(torch.tensor(log(value / (1 - value))))


def root(square: Tensor) -> Tensor:
    """Square root whose derivative at 0 is finite.

    So weights that never had a gradient do not spoil a meta-gradient.
    """
    return torch.sqrt(square + 1e-30)
