"""A learned optimizer as one would first write it: the rival that the bench measures against."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.optimizers.features import MOMENTUM_DECAYS, ema, time_features


class PlainLoop(torch.optim.Optimizer):
    """A pointwise optimizer of the UNF paper: tensor by tensor, all features, then layer by layer.

    Its steps equal those of ``LearnedOptimizer`` to rounding.

    Args:
        params: parameters.
        meta_optimizer: with pointwise layers, joint normalisation and the paper's momentum.
    """

    def __init__(self, params: Iterable[nn.Parameter], meta_optimizer: Any) -> None:
        super().__init__(params, {})
        self.meta_optimizer = meta_optimizer.requires_grad_(False)

    @override
    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for group in self.param_groups:
            for param in group["params"]:
                self._step_of(param)

    def _step_of(self, param: nn.Parameter) -> None:
        meta = self.meta_optimizer
        assert param.grad is not None, "the bench sets it"

        state = self.state[param]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.int64)
            state["momentum"] = torch.zeros_like(param)
            state["momenta"] = [torch.zeros_like(param) for _ in MOMENTUM_DECAYS]

        momenta = []
        for momentum, decay in zip(state["momenta"], MOMENTUM_DECAYS, strict=True):
            momenta.append(ema(momentum, param.grad, decay))
        state["momenta"] = momenta

        outputs = self._function(param, param.grad, momenta, state["step"])
        state["momentum"] = ema(state["momentum"], param.grad, meta.logit_gamma.sigmoid())
        direction = state["momentum"] + meta.log_beta.exp() * outputs
        param.sub_(meta.log_alpha.exp() * direction)
        state["step"] = state["step"] + 1

    def _function(self, param: Tensor, grad: Tensor, momenta: list[Tensor], step: Tensor) -> Tensor:
        """Features of one tensor, ``(*shape, C)``, and the layers on them."""
        channels = torch.stack([param, grad, *momenta], -1).clamp(-1, 1)  # (*shape, C)
        channels = channels * torch.rsqrt(1e-5 + channels.square().mean())
        times = time_features(step, param.dtype).expand(*param.shape, -1)

        hidden = torch.cat([channels, times], -1)
        for i, layer in enumerate(self.meta_optimizer.function.layers):
            inputs = hidden.relu() if i else hidden
            hidden = inputs @ layer.weight + layer.affine()[1]
        return hidden.squeeze(-1)
