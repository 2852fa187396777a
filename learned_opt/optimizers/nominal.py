"""The hand-designed half of a learned optimizer: its direction before anything is learned.

A nominal part keeps a momentum, of which the learned function sees the direction, and decides how
what was learned changes the step. Its decay gamma and the step size alpha belong to the optimizer,
see ``UNFOptimizer``.
"""

from abc import ABC, abstractmethod
from math import sqrt

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers.base import check_positive
from learned_opt.optimizers.features import TINY, ema
from learned_opt.optimizers.hand.base import log_parameter, logit_parameter
from learned_opt.optimizers.linear_algebra import orthogonalise


class Nominal(nn.Module, ABC):
    """What ``UNFOptimizer`` does at beta = 0.

    Attributes:
        num_features: channels that the learned function reads beside those of ``features``.
        num_outputs: of the learned function, for each weight.
    """

    num_features: int
    num_outputs: int

    def init_state(self, params: Tree) -> Tree:
        """A zero momentum for every parameter."""
        return {"momentum": tree_map(torch.zeros_like, params)}

    def advance(self, grads: Tree, state: Tree, gamma: Tensor) -> Tree:
        """The state after a gradient; gamma is the decay of the momentum."""
        return {"momentum": tree_map(lambda m, g: ema(m, g, gamma), state["momentum"], grads)}

    @abstractmethod
    def direction(self, state: Tree, step: Tensor, gamma: Tensor) -> Tree:
        """Where to go, up to sign and size.

        Args:
            state: as ``advance`` gives it.
            step: number of gradients seen, this one included.
            gamma: decay of the momentum.

        Returns:
            Tree: ``(*shape,)`` for every parameter.
        """

    @abstractmethod
    def update(
        self, direction: Tensor, learned: Tensor, param: Tensor, step: Tensor, beta: Tensor
    ) -> Tensor:
        """The step of one tensor, before ``-alpha``.

        Args:
            direction: ``(*shape,)``.
            learned: ``(*shape, num_outputs)``, the output of the learned function.
            param: ``(*shape,)``.
            step: as in ``direction``.
            beta: weight of the learned function.
        """


class Momentum(Nominal):
    """SGD with momentum: ``m + beta f``. The paper's."""

    num_features = 0
    num_outputs = 1

    @override
    def direction(self, state: Tree, step: Tensor, gamma: Tensor) -> Tree:
        del step, gamma
        return state["momentum"]

    @override
    def update(
        self, direction: Tensor, learned: Tensor, param: Tensor, step: Tensor, beta: Tensor
    ) -> Tensor:
        del param, step
        return direction + beta * learned.squeeze(-1)


class Relative(Nominal):
    """Adam's direction or Muon's, in units of the size of each tensor.

    So step sizes carry over to other networks. At step t it is
    ``s clip(d exp(beta f_2) + beta f_1) / (1 + t / period)^power``, ``d`` the bias-corrected
    momentum over the root of the second moment, ``clip`` scaling a tensor down to a root mean
    square of ``limit``, and ``s`` the root of ``mean(param^2) + floor^2``, or the floor alone for
    vectors and scalars: biases start at zero, and the gains of norms, which start at one, must not
    move tenfold faster. So no step moves a tensor further than ``alpha limit`` times its size,
    whatever was learned, and steps anneal without knowing the horizon. Scaling the loss changes
    nothing; nor does scaling a matrix that is far above the floor, in its own units.

    Args:
        beta2: decay of the second moment at the start; it is learned.
        floor: size of vectors and scalars, and least size of all others; learned.
        period: steps after which the step size falls; learned.
        power: how fast it falls then.
        limit: largest root mean square of a tensor's step, in units of its size and of alpha.
        orthogonal: tensors of two axes or more take Muon's direction in the place of Adam's: ``d``
            is the momentum with its singular values set to about 1, scaled to entries of order one.
            Further axes count as the second.
        additive: False leaves f_1 out. What it adds is alike in many entries, so that its spectral
            norm grows with the width where that of d does not; what was learned on narrow networks
            then harms wide ones.

    Raises:
        ValueError: beta2 outside (0, 1); floor, period, power or limit not positive; orthogonal or
            additive neither true nor false.

    Source: Kingma & Ba 2015 (arXiv 1412.6980) for the direction; Shazeer & Stern 2018 (Adafactor,
        arXiv 1804.04235), sections 6 to 8, for relative and falling steps and clipping, there with
        a maximum in place of the sum; Jordan et al. 2024 (kellerjordan.github.io/posts/muon) for
        the orthogonal direction, there with Nesterov's momentum.
    """

    num_features = 1

    def __init__(
        self,
        beta2: float = 0.99,
        floor: float = 0.1,
        period: float = 30.0,
        power: float = 0.5,
        limit: float = 2.0,
        orthogonal: bool = False,
        additive: bool = True,
    ) -> None:
        super().__init__()
        check_positive(power=power, limit=limit)
        for name, flag in (("orthogonal", orthogonal), ("additive", additive)):
            if flag not in (True, False):
                raise ValueError(f"{name} must be true or false, got {flag!r}.")

        self.power = power
        self.limit = limit
        self.orthogonal = orthogonal
        self.additive = additive
        self.num_outputs = 2 if additive else 1
        self.logit_beta2 = logit_parameter("beta2", beta2)
        self.log_floor = log_parameter("floor", floor)
        self.log_period = log_parameter("period", period)

    @override
    def init_state(self, params: Tree) -> Tree:
        # only tensors that take Adam's direction need a second moment
        second = {}
        for name, param in params.items():
            if not self.orthogonal or param.ndim < 2:
                second[name] = torch.zeros_like(param)
        return super().init_state(params) | {"second": second}

    @override
    def advance(self, grads: Tree, state: Tree, gamma: Tensor) -> Tree:
        beta2 = self.logit_beta2.sigmoid()
        second = {}
        for name, average in state["second"].items():
            second[name] = ema(average, grads[name] * grads[name], beta2)
        return super().advance(grads, state, gamma) | {"second": second}

    @override
    def direction(self, state: Tree, step: Tensor, gamma: Tensor) -> Tree:
        correction = (1 - self.logit_beta2.sigmoid() ** step).sqrt() / (1 - gamma**step)
        second = state["second"]
        directions = {}
        for name, momentum in state["momentum"].items():
            if name in second:
                directions[name] = correction * momentum * torch.rsqrt(second[name] + TINY)
            else:
                directions[name] = _orthogonal(momentum)
        return directions

    @override
    def update(
        self, direction: Tensor, learned: Tensor, param: Tensor, step: Tensor, beta: Tensor
    ) -> Tensor:
        moved = direction * (beta * learned[..., -1]).exp()
        if self.additive:
            moved = moved + beta * learned[..., 0]

        # a tensor that is short enough is divided by the limit, which leaves it as it is
        clipped = moved * self.limit / moved.square().mean().clamp(min=self.limit**2).sqrt()

        size = self.log_floor.exp()
        if param.ndim > 1:  # biases start at zero, gains of norms at one: the floor alone
            size = (param.square().mean() + size**2).sqrt()
        return clipped * size * (1 + step * (-self.log_period).exp()) ** -self.power


def _orthogonal(momentum: Tensor) -> Tensor:
    """A momentum with singular values of about 1, scaled to entries of order one."""
    matrix = orthogonalise(momentum.flatten(1))
    return sqrt(max(matrix.shape)) * matrix.reshape(momentum.shape)
