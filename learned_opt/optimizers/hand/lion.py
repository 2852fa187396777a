"""Lion: the sign of a momentum."""

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.features import ema
from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo, logit_parameter


class Lion(Rule):
    """``update = -lr sign(beta1 m + (1 - beta1) g)``, then ``m <- beta2 m + (1 - beta2) g``.

    theta = logits of the betas. Estimators that differentiate find no gradient of the betas, since
    the sign has none.

    Args:
        beta1: share of the momentum in the step.
        beta2: decay of the momentum.

    Source: Chen et al. 2023 (arXiv 2302.06675), algorithm 2.
    """

    def __init__(self, beta1: float = 0.9, beta2: float = 0.99) -> None:
        super().__init__()
        self.logit_beta1 = logit_parameter("beta1", beta1)
        self.logit_beta2 = logit_parameter("beta2", beta2)

    @override
    def init_state(self, param: Tensor) -> RuleState:
        return {"momentum": torch.zeros_like(param)}

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        del param
        # the step weighs the new gradient more than the memory does
        direction = torch.sign(ema(state["momentum"], grad, self.logit_beta1.sigmoid()))
        momentum = ema(state["momentum"], grad, self.logit_beta2.sigmoid())
        return -info.lr * direction, {"momentum": momentum}
