"""The gradient over the root of its squares, summed (Adagrad) or averaged (RMSProp)."""

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


class Adagrad(Rule):
    """``v <- v + g^2``, ``update = -lr g / (sqrt v + eps)``; theta = log eps.

    Args:
        eps: added to the root.

    Source: Duchi et al. 2011 (JMLR 12), diagonal form.
    """

    def __init__(self, eps: float = 1e-10) -> None:
        super().__init__()
        self.log_eps = log_parameter("eps", eps)

    @override
    def init_state(self, param: Tensor) -> RuleState:
        return {"sum": torch.zeros_like(param)}

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        del param
        total = state["sum"] + grad * grad
        update = -info.lr * grad / (root(total) + self.log_eps.exp())
        return update, {"sum": total}


class RMSProp(Rule):
    """``v <- beta v + (1 - beta) g^2``, ``update = -lr g / (sqrt v + eps)``.

    theta = (logit beta, log eps).

    Args:
        beta: decay of the average of squares.
        eps: added to the root.

    Source: Tieleman & Hinton 2012, lecture 6.5, in the form of ``torch.optim.RMSprop``.
    """

    def __init__(self, beta: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__()
        self.logit_beta = logit_parameter("beta", beta)
        self.log_eps = log_parameter("eps", eps)

    @override
    def init_state(self, param: Tensor) -> RuleState:
        return {"second": torch.zeros_like(param)}

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        del param
        second = ema(state["second"], grad * grad, self.logit_beta.sigmoid())
        update = -info.lr * grad / (root(second) + self.log_eps.exp())
        return update, {"second": second}
