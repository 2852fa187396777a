"""Steps as long as the weights that they move; on Adam this is LAMB."""

from collections.abc import Callable

import torch
from torch import Tensor

from learned_opt.optimizers.hand.adam import Adam
from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo, log_parameter, root


class TrustRatio(Rule):
    """Another rule's update u and weight decay, scaled to the norm of the tensor: ``lr |p| / |u| u``.

    Where the tensor or the update is 0, the update stays as it is.

    Args:
        rule: constructor of the rule that gives the direction.
        weight_decay: of the direction, ``u - lr weight_decay p``.

    Source: You et al. 2020 (arXiv 1904.00962), algorithm 2, with the identity as phi.
    """

    def __init__(self, rule: Callable[[], Rule] = Adam, weight_decay: float = 0.01) -> None:
        super().__init__()
        self.rule, self.log_weight_decay = rule(), log_parameter("weight_decay", weight_decay)

    def init_state(self, param: Tensor) -> RuleState:
        """That of the rule."""
        return self.rule.init_state(param)

    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """See ``Rule.forward``."""
        update, state = self.rule(grad, state, param, info)
        update = update - info.lr * self.log_weight_decay.exp() * param
        weights, step = root(param.square().sum()), root(update.square().sum())
        tiny = 1e-14  # zero, but for what keeps the root differentiable
        ratio = torch.where((weights > tiny) & (step > tiny), info.lr * weights / step, 1.0)
        return ratio * update, state
