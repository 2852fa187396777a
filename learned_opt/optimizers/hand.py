"""Hand-designed optimizers in the meta-optimizer contract: their hyper-parameters are theta.

The same two classes serve as baselines (theta set by a tuner, one learning rate per chain) and as the smallest
learned optimizers (theta meta-trained).
"""

from math import log
from typing import Self

import torch
from torch import Tensor, nn

from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.features import ema
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.tree import Tree, tree_map


class SGDM(MetaOptimizer):
    """SGD with momentum: ``m <- gamma m + (1 - gamma) g``, ``update = -lr m``; theta = (log lr, logit gamma).

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        lr: learning rate. The momentum is an average, so it is 1 / (1 - gamma) times ``torch.optim.SGD``'s.
        gamma: decay of the momentum.
    """

    separable = True

    def __init__(self, spec: PermutationSpec, lr: float = 0.1, gamma: float = 0.9) -> None:
        super().__init__(spec)
        _check_rates(lr=lr, gamma=gamma)
        self.log_lr = nn.Parameter(torch.tensor(log(lr)))
        self.logit_gamma = nn.Parameter(_logit(gamma))

    def init_state(self, params: Tree) -> Tree:
        """Zero momentum and step."""
        return {"step": _zero_step(params), "momentum": tree_map(torch.zeros_like, params)}

    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One inner step, see ``MetaOptimizer.forward``."""
        del params, loss
        gamma, lr = self.logit_gamma.sigmoid(), self.log_lr.exp()
        momentum = tree_map(lambda m, g: ema(m, g, gamma), state["momentum"], grads)
        return tree_map(lambda m: -lr * m, momentum), {"step": state["step"] + 1, "momentum": momentum}

    def rebind(self, spec: PermutationSpec) -> Self:
        """Fits every spec."""
        return self._on(spec)


class Adam(MetaOptimizer):
    """Adam with bias correction; theta = (log lr, logit beta1, logit beta2, log eps).

    Args:
        spec: permutation spec of the inner parameters; the update does not depend on it.
        lr: learning rate.
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.

    Source: Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1.
    """

    separable = True

    def __init__(
        self, spec: PermutationSpec, lr: float = 1e-3, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__(spec)
        _check_rates(lr=lr, beta1=beta1, beta2=beta2)
        if eps <= 0:
            raise ValueError(f"eps must be positive, got {eps}.")
        self.log_lr = nn.Parameter(torch.tensor(log(lr)))
        self.logit_beta1, self.logit_beta2 = nn.Parameter(_logit(beta1)), nn.Parameter(_logit(beta2))
        self.log_eps = nn.Parameter(torch.tensor(log(eps)))

    def init_state(self, params: Tree) -> Tree:
        """Zero moments and step."""
        zeros = tree_map(torch.zeros_like, params)
        return {"step": _zero_step(params), "first": zeros, "second": tree_map(torch.clone, zeros)}

    def forward(self, grads: Tree, state: Tree, params: Tree, loss: Tensor) -> tuple[Tree, Tree]:
        """One inner step, see ``MetaOptimizer.forward``."""
        del params, loss
        beta1, beta2 = self.logit_beta1.sigmoid(), self.logit_beta2.sigmoid()
        lr, eps, step = self.log_lr.exp(), self.log_eps.exp(), state["step"] + 1
        first = tree_map(lambda m, g: ema(m, g, beta1), state["first"], grads)
        second = tree_map(lambda v, g: ema(v, g * g, beta2), state["second"], grads)
        correction1, correction2 = 1 - beta1**step, 1 - beta2**step
        updates = tree_map(lambda m, v: -lr * (m / correction1) / ((v / correction2).sqrt() + eps), first, second)
        return updates, {"step": step, "first": first, "second": second}

    def rebind(self, spec: PermutationSpec) -> Self:
        """Fits every spec."""
        return self._on(spec)


def _zero_step(params: Tree) -> Tensor:
    return torch.zeros((), dtype=torch.int64, device=next(iter(params.values())).device)


def _logit(probability: float) -> Tensor:
    return torch.tensor(log(probability / (1 - probability)))


def _check_rates(*, lr: float, **decays: float) -> None:
    if lr <= 0:
        raise ValueError(f"lr must be positive, got {lr}.")
    for name, decay in decays.items():
        if not 0 < decay < 1:
            raise ValueError(f"{name} must lie between 0 and 1, got {decay}.")
