"""Adam and its relatives; AdamW and NAdamW are these with decoupled weight decay."""

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


class Adam(Rule):
    """``update = -lr m' / (sqrt v' + eps)``, m' and v' the moments without bias.

    theta = (logits of the betas, log eps).

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.

    Source: Kingma & Ba 2015 (arXiv 1412.6980), algorithm 1.
    """

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__()
        self.moments = Moments(beta1, beta2)
        self.log_eps = log_parameter("eps", eps)

    @override
    def init_state(self, param: Tensor) -> RuleState:
        return self.moments.init_state(param)

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        del param
        state, correction1, correction2 = self.moments(grad, state, info.step)
        first = state["first"] / correction1
        second = state["second"] / correction2
        scale = root(second) + self.log_eps.exp()  # (*shape,)
        return -info.lr * first / scale, state


class NAdam(Rule):
    """Adam with Nesterov momentum, whose weight mu_t grows to beta1 as in the paper's schedule.

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.
        momentum_decay: how fast mu_t grows, per step.

    Source: Dozat 2016 (ICLR workshop), in the form of ``torch.optim.NAdam``.
    """

    def __init__(
        self,
        beta1: float = 0.9,
        beta2: float = 0.999,
        eps: float = 1e-8,
        momentum_decay: float = 4e-3,
    ) -> None:
        super().__init__()
        self.moments = Moments(beta1, beta2)
        self.log_eps = log_parameter("eps", eps)
        self.log_momentum_decay = log_parameter("momentum_decay", momentum_decay)

    @override
    def init_state(self, param: Tensor) -> RuleState:
        product = param.new_ones(())  # of all mu_t so far
        return {**self.moments.init_state(param), "product": product}

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        del param
        moments, _, correction2 = self.moments(grad, state, info.step)
        mu = self._mu(info.step)
        mu_next = self._mu(info.step + 1)
        product = state["product"] * mu  # scalar: how much of the start is left in the average

        scale = root(moments["second"] / correction2) + self.log_eps.exp()
        by_gradient = grad * (1 - mu) / (1 - product)
        by_momentum = moments["first"] * mu_next / (1 - product * mu_next)
        update = -info.lr * (by_gradient + by_momentum) / scale
        return update, {**moments, "product": product}

    def _mu(self, step: Tensor) -> Tensor:
        return self.moments.beta1 * (1 - 0.5 * 0.96 ** (step * self.log_momentum_decay.exp()))


class RAdam(Rule):
    """Adam whose second moment counts by how well it is known, and not at all in the first steps.

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
        eps: added to the root of the second moment.

    Source: Liu et al. 2020 (arXiv 1908.03265), algorithm 2.
    """

    def __init__(self, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8) -> None:
        super().__init__()
        self.moments = Moments(beta1, beta2)
        self.log_eps = log_parameter("eps", eps)

    @override
    def init_state(self, param: Tensor) -> RuleState:
        return self.moments.init_state(param)

    @override
    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        del param
        state, correction1, correction2 = self.moments(grad, state, info.step)

        # rho in the paper: the length of the average behind the second moment
        longest = 2 / (1 - self.moments.beta2) - 1
        length = longest - 2 * info.step * (1 - correction2) / correction2
        long_enough = length > 5
        # where it is too short, any other value keeps the root of the unused branch real
        length = torch.where(long_enough, length, longest)

        numerator = (length - 4) * (length - 2) * longest
        denominator = (longest - 4) * (longest - 2) * length
        rectifier = (numerator / denominator.clamp_min(1e-30)).sqrt()
        adaptive = rectifier * correction2.sqrt() / (root(state["second"]) + self.log_eps.exp())

        # without the second moment it is SGD with an unbiased momentum
        momentum_step = -info.lr * state["first"] / correction1
        return momentum_step * torch.where(long_enough, adaptive, 1.0), state


class Moments(torch.nn.Module):
    """Averages of the gradient and of its square; theta = (logit beta1, logit beta2).

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
    """

    def __init__(self, beta1: float, beta2: float) -> None:
        super().__init__()
        self.logit_beta1 = logit_parameter("beta1", beta1)
        self.logit_beta2 = logit_parameter("beta2", beta2)

    @property
    def beta1(self) -> Tensor:
        """Decay of the first moment, a scalar."""
        return self.logit_beta1.sigmoid()

    @property
    def beta2(self) -> Tensor:
        """Decay of the second moment, a scalar."""
        return self.logit_beta2.sigmoid()

    def init_state(self, param: Tensor) -> RuleState:
        """Two zero tensors of the parameter's shape."""
        return {"first": torch.zeros_like(param), "second": torch.zeros_like(param)}

    def forward(
        self, grad: Tensor, state: RuleState, step: Tensor
    ) -> tuple[RuleState, Tensor, Tensor]:
        """The moments after this gradient, and the two factors to divide them by for zero bias."""
        first = ema(state["first"], grad, self.beta1)
        second = ema(state["second"], grad * grad, self.beta2)
        moments = {"first": first, "second": second}

        return moments, 1 - self.beta1**step, 1 - self.beta2**step
