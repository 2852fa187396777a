"""Adafactor: a second moment of which only row and column means are kept."""

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo, log_parameter, root
from learned_opt.optimizers.update_scale import PARAMETER


class Adafactor(Rule):
    """``update = -lr max(eps2, rms p) u / max(1, rms u)``.

    u is the gradient over the root of its factored squares. The decay of the averages grows as
    ``1 - step^-decay_rate``. theta = log decay_rate.

    Args:
        decay_rate: exponent of the decay.
        eps1: least second moment, squared, and least mean over rows; None for the machine
            precision.
        eps2: least scale of a parameter.

    Source: Shazeer & Stern 2018 (arXiv 1804.04235), algorithms 4 and 5, in the form of
    ``torch.optim.Adafactor``, which factors the last two axes; its cap of lr at ``step^-1/2`` is
    left to the schedule.
    """

    update_scale = PARAMETER

    def __init__(
        self, decay_rate: float = 0.8, eps1: float | None = None, eps2: float = 1e-3
    ) -> None:
        super().__init__()
        self.log_decay_rate = log_parameter("decay_rate", decay_rate)
        self.eps1 = eps1
        self.eps2 = eps2

    @override
    def init_state(self, param: Tensor) -> RuleState:
        if param.ndim < 2:
            return {"second": torch.zeros_like(param)}
        return {
            "rows": torch.zeros_like(param[..., :1]),  # (..., R, 1)
            "columns": torch.zeros_like(param[..., :1, :]),  # (..., 1, C)
        }

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        eps1 = torch.finfo(param.dtype).eps if self.eps1 is None else self.eps1
        weight = info.step ** -self.log_decay_rate.exp()
        square = grad * grad

        if param.ndim < 2:
            second = torch.lerp(state["second"], square, weight)
            state = {"second": second}
        else:
            rows = torch.lerp(state["rows"], square.mean(-1, keepdim=True), weight)
            columns = torch.lerp(state["columns"], square.mean(-2, keepdim=True), weight)
            # (..., R, C), the product of both over the mean that they share
            second = rows * columns / rows.mean(-2, keepdim=True).clamp_min(eps1)
            state = {"rows": rows, "columns": columns}

        # steps are in units of the parameter's size, and no longer than one of them
        direction = grad * second.clamp_min(eps1**2).rsqrt()
        scale = _rms(param).clamp_min(self.eps2) / _rms(direction).clamp_min(1.0)
        return -info.lr * scale * direction, state


def _rms(tensor: Tensor) -> Tensor:
    return root(tensor.square().mean())
