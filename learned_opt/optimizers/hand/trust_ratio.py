"""Steps as long as the weights that they move; on Adam this is LAMB."""

from collections.abc import Callable

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.hand.adam import Adam
from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo, log_parameter, root
from learned_opt.optimizers.update_scale import PARAMETER

TINY = 1e-14  # the norm of a zero tensor, since ``root`` adds a little to stay differentiable


class TrustRatio(Rule):
    """Another rule's update u and weight decay, scaled to the norm of the tensor.

    ``update = lr |p| / |u| u``.

    Where the tensor or the update is 0, the update stays as it is.

    Args:
        rule: constructor of the rule that gives the direction.
        weight_decay: of the direction, ``u - lr weight_decay p``.

    Source: You et al. 2020 (arXiv 1904.00962), algorithm 2, with the identity as phi. Both moments
    are without bias and the decay is within the ratio. Packages differ: ``pytorch_optimizer.Lamb``
    leaves the decay outside and divides the step by 1 - beta1^t after the ratio, so that its first
    step is ten times as long; with ``adam_debias=True`` and no decay it makes these steps.
    """

    update_scale = PARAMETER

    def __init__(self, rule: Callable[[], Rule] = Adam, weight_decay: float = 0.01) -> None:
        super().__init__()
        self.rule = rule()
        self.log_weight_decay = log_parameter("weight_decay", weight_decay)

    @override
    def init_state(self, param: Tensor) -> RuleState:
        return self.rule.init_state(param)

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        update, state = self.rule(grad, state, param, info)
        update = update - info.lr * self.log_weight_decay.exp() * param

        param_norm = root(param.square().sum())
        update_norm = root(update.square().sum())
        # a fresh bias of zeros would otherwise never leave zero
        both = (param_norm > TINY) & (update_norm > TINY)
        ratio = torch.where(both, info.lr * param_norm / update_norm, 1.0)
        return ratio * update, state
