"""Gradient descent, plain and with momentum."""

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.features import ema
from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo, logit_parameter
from learned_opt.optimizers.update_scale import GRADIENT


class SGD(Rule):
    """``update = -lr g``: gradient descent without any memory."""

    update_scale = GRADIENT

    @override
    def init_state(self, param: Tensor) -> RuleState:
        del param
        return {}

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        del param
        return -info.lr * grad, state


class Momentum(Rule):
    """``m <- gamma m + (1 - gamma) g``, ``update = -lr m``; theta = logit gamma.

    The momentum is an average, so the learning rate is 1 / (1 - gamma) times that of
    ``torch.optim.SGD``.

    Args:
        gamma: decay of the momentum.
        nesterov: step along ``gamma m + (1 - gamma) g``, the momentum after one more such gradient.

    Source: Sutskever et al. 2013 (ICML), in the form of ``torch.optim.SGD``.
    """

    update_scale = GRADIENT

    def __init__(self, gamma: float = 0.9, nesterov: bool = False) -> None:
        super().__init__()
        self.logit_gamma = logit_parameter("gamma", gamma)
        self.nesterov = nesterov

    @override
    def init_state(self, param: Tensor) -> RuleState:
        return {"momentum": torch.zeros_like(param)}

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        del param
        gamma = self.logit_gamma.sigmoid()
        momentum = ema(state["momentum"], grad, gamma)  # (*shape,)
        direction = ema(momentum, grad, gamma) if self.nesterov else momentum
        return -info.lr * direction, {"momentum": momentum}
