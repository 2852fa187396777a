"""Schedule-free AdamW: an average of the iterates takes the place of a schedule."""

import torch
from torch import Tensor

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

    Parameters are y, where the gradient is taken. Figures on held-out data are those of y too, not of x, which the
    contract of a meta-optimizer does not show.

    Args:
        beta1: share of the average x in y.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
        weight_decay: at y.

    Source: Defazio et al. 2024 (arXiv 2405.15682), algorithm 1, weights lr_max^2 of the average as in the authors'
    code; theta = (logits of betas, log eps, log weight_decay).
    """

    def __init__(
        self,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        weight_decay: float = 0.01,
    ) -> None:
        super().__init__()
        self.logit_beta1, self.logit_beta2 = (
            logit_parameter("beta1", beta1),
            logit_parameter("beta2", beta2),
        )
        self.log_eps, self.log_weight_decay = (
            log_parameter("eps", eps),
            log_parameter("weight_decay", weight_decay),
        )

    def init_state(self, param: Tensor) -> RuleState:
        """The point z at the parameter, no second moment, no weights yet."""
        zero = param.new_zeros(())
        return {
            "z": param.clone(),
            "second": torch.zeros_like(param),
            "lr_max": zero,
            "weight_sum": zero.clone(),
        }

    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """See ``Rule.forward``."""
        beta1, beta2 = self.logit_beta1.sigmoid(), self.logit_beta2.sigmoid()
        second = ema(state["second"], grad * grad, beta2)
        direction = grad / (root(second / (1 - beta2**info.step)) + self.log_eps.exp())
        direction = direction + self.log_weight_decay.exp() * param
        lr_max = torch.maximum(state["lr_max"], info.lr.to(state["lr_max"]))
        weight_sum = state["weight_sum"] + lr_max**2
        share = lr_max**2 / weight_sum.clamp_min(torch.finfo(param.dtype).tiny)  # of the new z in x
        update = share * (state["z"] - param) + info.lr * (beta1 * (1 - share) - 1) * direction
        z = state["z"] - info.lr * direction
        return update, {"z": z, "second": second, "lr_max": lr_max, "weight_sum": weight_sum}
