"""Rules that see a parameter as a matrix: Muon and Shampoo."""

from collections.abc import Callable
from math import sqrt

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.base import check_positive
from learned_opt.optimizers.features import ema
from learned_opt.optimizers.hand.adam import Adam
from learned_opt.optimizers.hand.base import Rule, RuleState, StepInfo, logit_parameter
from learned_opt.optimizers.linear_algebra import inverse_root, orthogonalise
from learned_opt.optimizers.update_scale import ORTHOGONAL_ENTRY, SPECTRAL


class Muon(Rule):
    """The momentum with its singular values set to about 1, for tensors of two axes or more.

    theta = (logit gamma, what the rule for vectors has). A step has the root mean square of a step
    of Adam at the same learning rate (0.2), so that both share one. Further axes of a tensor are
    taken as one with the second; vectors move by another rule.

    Args:
        gamma: decay of the momentum (Nesterov's).
        vectors: constructor of the rule for tensors of fewer axes.

    Source: Jordan et al. 2024 (kellerjordan.github.io/posts/muon); scale of Liu et al. 2025 (arXiv
    2502.16982), as in ``torch.optim.Muon(adjust_lr_fn="match_rms_adamw")``, but in the precision of
    the gradient rather than bfloat16.
    """

    update_scale = ORTHOGONAL_ENTRY

    def __init__(self, gamma: float = 0.95, vectors: Callable[[], Rule] = Adam) -> None:
        super().__init__()
        self.logit_gamma = logit_parameter("gamma", gamma)
        self.vectors = vectors()

    @override
    def init_state(self, param: Tensor) -> RuleState:
        if param.ndim < 2:
            return self.vectors.init_state(param)
        return {"momentum": torch.zeros_like(param)}

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        if param.ndim < 2:
            return self.vectors(grad, state, param, info)

        gamma = self.logit_gamma.sigmoid()
        momentum = ema(state["momentum"], grad, gamma)
        nesterov = ema(momentum, grad, gamma)
        direction = orthogonalise(nesterov.flatten(1))  # (R, C)
        # an orthogonal (R, C) has entries of root mean square 1 / sqrt(max(R, C))
        scale = 0.2 * sqrt(max(direction.shape))
        return -info.lr * scale * direction.reshape(grad.shape), {"momentum": momentum}


class Shampoo(Rule):
    """``update = -lr L^{-1/4} g R^{-1/4}``, L and R the sums of ``g g^T`` and ``g^T g``.

    Both start at eps times the identity. A tensor of k axes has one sum for each and exponent
    -1 / 2k. The roots are taken at every step, since chains side by side may stand at different
    steps. The meta-gradient takes them as constants: eigenvectors of equal eigenvalues have no
    derivative.

    Args:
        eps: of the start.
        largest: longest axis that has a sum; longer ones stay as they are.

    Source: Gupta et al. 2018 (arXiv 1802.09568), algorithm 2.
    """

    update_scale = SPECTRAL

    def __init__(self, eps: float = 1e-6, largest: int = 1024) -> None:
        super().__init__()
        check_positive(eps=eps)
        self.eps = eps
        self.largest = largest

    @override
    def init_state(self, param: Tensor) -> RuleState:
        sums = {}
        for axis, size in enumerate(param.shape):
            if size <= self.largest:
                identity = torch.eye(size, dtype=param.dtype, device=param.device)
                sums[f"axis{axis}"] = self.eps * identity
        return sums

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        sums = {}
        direction = grad
        for axis, size in enumerate(param.shape):
            name = f"axis{axis}"
            if name not in state:
                continue

            unfolded = grad.movedim(axis, 0).reshape(size, -1)  # (size, the other axes)
            sums[name] = state[name] + unfolded @ unfolded.mT
            inverse = inverse_root(sums[name].detach(), 2 * param.ndim)

            moved = direction.movedim(axis, 0)
            product = inverse @ moved.reshape(size, -1)
            direction = product.reshape(moved.shape).movedim(0, axis)

        return -info.lr * direction, sums
