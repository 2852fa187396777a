"""Adam and its relatives; AdamW and NAdamW are these with decoupled weight decay."""

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


class Adam(Rule):
    """``update = -lr m' / (sqrt v' + eps)``, m' and v' the moments without bias; theta = (logits of betas, log eps).

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

    def init_state(self, param: Tensor) -> RuleState:
        """Zero moments."""
        return self.moments.init_state(param)

    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """See ``Rule.forward``."""
        del param
        state, correction1, correction2 = self.moments(grad, state, info.step)
        first, second = state["first"] / correction1, state["second"] / correction2
        return -info.lr * first / (root(second) + self.log_eps.exp()), state


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
        self.log_eps, self.log_momentum_decay = (
            log_parameter("eps", eps),
            log_parameter("momentum_decay", momentum_decay),
        )

    def init_state(self, param: Tensor) -> RuleState:
        """Zero moments, and the product of all mu_t so far."""
        return {**self.moments.init_state(param), "product": param.new_ones(())}

    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """See ``Rule.forward``."""
        del param
        moments, _, correction2 = self.moments(grad, state, info.step)
        mu, mu_next = self._mu(info.step), self._mu(info.step + 1)
        product = state["product"] * mu
        scale = root(moments["second"] / correction2) + self.log_eps.exp()
        direction = grad * (1 - mu) / (1 - product) + moments["first"] * mu_next / (
            1 - product * mu_next
        )
        return -info.lr * direction / scale, {**moments, "product": product}

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

    def init_state(self, param: Tensor) -> RuleState:
        """Zero moments."""
        return self.moments.init_state(param)

    def forward(
        self, grad: Tensor, state: RuleState, param: Tensor, info: StepInfo
    ) -> tuple[Tensor, RuleState]:
        """See ``Rule.forward``."""
        del param
        state, correction1, correction2 = self.moments(grad, state, info.step)
        longest = 2 / (1 - self.moments.beta2) - 1
        length = (
            longest - 2 * info.step * (1 - correction2) / correction2
        )  # of the average behind the second moment
        known = length > 5
        length = torch.where(
            known, length, longest
        )  # keeps the root of the branch that is not taken real
        rectifier = (
            ((length - 4) * (length - 2) * longest)
            / ((longest - 4) * (longest - 2) * length).clamp_min(1e-30)
        ).sqrt()
        adaptive = rectifier * correction2.sqrt() / (root(state["second"]) + self.log_eps.exp())
        return -info.lr * state["first"] / correction1 * torch.where(known, adaptive, 1.0), state


class Moments(torch.nn.Module):
    """Averages of the gradient and of its square; theta = (logit beta1, logit beta2).

    Args:
        beta1: decay of the first moment.
        beta2: decay of the second moment.
    """

    def __init__(self, beta1: float, beta2: float) -> None:
        super().__init__()
        self.logit_beta1, self.logit_beta2 = (
            logit_parameter("beta1", beta1),
            logit_parameter("beta2", beta2),
        )

    @property
    def beta1(self) -> Tensor:
        """Decay of the first moment."""
        return self.logit_beta1.sigmoid()

    @property
    def beta2(self) -> Tensor:
        """Decay of the second moment."""
        return self.logit_beta2.sigmoid()

    def init_state(self, param: Tensor) -> RuleState:
        """Zero moments."""
        return {"first": torch.zeros_like(param), "second": torch.zeros_like(param)}

    def forward(
        self, grad: Tensor, state: RuleState, step: Tensor
    ) -> tuple[RuleState, Tensor, Tensor]:
        """The moments after this gradient, and the two factors to divide them by for zero bias."""
        first, second = (
            ema(state["first"], grad, self.beta1),
            ema(state["second"], grad * grad, self.beta2),
        )
        return {"first": first, "second": second}, 1 - self.beta1**step, 1 - self.beta2**step
