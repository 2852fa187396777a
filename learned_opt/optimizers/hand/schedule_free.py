"""Schedule-free AdamW: an average of the iterates takes the place of a schedule."""

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.features import ema
from learned_opt.optimizers.hand.base import (
    Rule,
    RuleState,
    StepInfo,
    log_parameter,
    logit_parameter,
    root,
)


class ScheduleFreeAdamW(Rule):
    """AdamW on z, gradients at ``y = (1 - beta1) z + beta1 x``, x the average of all z.

    Parameters are y, where the gradient is taken. Figures on held-out data are those of y too, not
    of x, which the contract of a meta-optimizer does not show.

    Args:
        beta1: share of the average x in y.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: at y.

    Source: Defazio et al. 2024 (arXiv 2405.15682), algorithm 1, weights lr_max^2 of the average as
    in the authors' code; theta = (logits of betas, log eps, log weight_decay).
    """

    def __init__(
        self,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.logit_beta1 = logit_parameter("beta1", beta1)
        self.logit_beta2 = logit_parameter("beta2", beta2)
        self.log_eps = log_parameter("eps", eps)
        self.log_weight_decay = log_parameter("weight_decay", weight_decay)

    @override
    def init_state(self, param: Tensor) -> RuleState:
        return {
            "z": param.clone(),  # all three points start as one
            "second": torch.zeros_like(param),
            "lr_max": param.new_zeros(()),
            "weight_sum": param.new_zeros(()),
        }

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        beta1 = self.logit_beta1.sigmoid()
        beta2 = self.logit_beta2.sigmoid()

        second = ema(state["second"], grad * grad, beta2)
        unbiased = second / (1 - beta2**info.step)
        direction = grad / (root(unbiased) + self.log_eps.exp())
        direction = direction + self.log_weight_decay.exp() * param

        lr_max = torch.maximum(state["lr_max"], info.lr.to(state["lr_max"]))
        weight_sum = state["weight_sum"] + lr_max**2
        tiny = torch.finfo(param.dtype).tiny
        share = lr_max**2 / weight_sum.clamp_min(tiny)  # of the new z in x

        # y moves with x, the average, and with z, the fast iterate
        towards_z = share * (state["z"] - param)
        update = towards_z + info.lr * (beta1 * (1 - share) - 1) * direction
        z = state["z"] - info.lr * direction
        return update, {"z": z, "second": second, "lr_max": lr_max, "weight_sum": weight_sum}
