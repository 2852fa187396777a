"""The hand-designed half of a learned optimizer: its direction before anything is learned.

A nominal part keeps a momentum, of which the learned function sees the direction, and decides how
what was learned changes the step. Its decay gamma and the step size alpha belong to the optimizer,
see ``UNFOptimizer``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from math import sqrt
from types import MappingProxyType
from typing import Self

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

    def rule(self, name: str, num_axes: int) -> str:
        """What a tensor of that name and number of axes is treated by, in a word."""
        del name, num_axes
        return "momentum"

    def with_rules(self, rules: Mapping[str, str]) -> Self:
        """The same, some tensors treated by other rules; this module stays as it is.

        Args:
            rules: name of a tensor -> name of its rule.

        Raises:
            ValueError: there is no choice of rules, or a rule does not exist.
        """
        raise ValueError(
            f"{type(self).__name__} treats all tensors by one rule, got rules {dict(rules)}."
        )

    def init_state(self, params: Tree) -> Tree:
        """A zero momentum for every parameter."""
        return {"momentum": tree_map(torch.zeros_like, params)}

    @abstractmethod
    def advance(self, grads: Tree, state: Tree, step: Tensor, gamma: Tensor) -> tuple[Tree, Tree]:
        """Read a gradient.

        Args:
            grads: ``(*shape,)`` for every parameter.
            state: of the step before; may hold more than the nominal part remembers.
            step: number of gradients seen, this one included.
            gamma: decay of the momentum.

        Returns:
            tuple[Tree, Tree]: where to go, up to sign and size, ``(*shape,)`` for every parameter;
            and the next state.
        """

    @abstractmethod
    def updates(
        self, directions: Tree, learned: Tree, params: Tree, state: Tree, step: Tensor, beta: Tensor
    ) -> Tree:
        """The steps of all tensors, before ``-alpha``.

        Args:
            directions: as ``advance`` gives them.
            learned: ``(*shape, num_outputs)``, the outputs of the learned function.
            params: ``(*shape,)``.
            state: as ``advance`` gives it.
            step: as in ``advance``.
            beta: weight of the learned function.

        Returns:
            Tree: ``(*shape,)`` for every parameter.
        """


# of a tensor: which direction it takes
RULES = ("orthogonal", "adam")
NO_RULES: Mapping[str, str] = MappingProxyType({})


class Momentum(Nominal):
    """SGD with momentum: ``m + beta f``. The paper's."""

    num_features = 0
    num_outputs = 1

    @override
    def advance(self, grads: Tree, state: Tree, step: Tensor, gamma: Tensor) -> tuple[Tree, Tree]:
        del step
        momentum = move_momentum(state["momentum"], grads, gamma)
        return momentum, {"momentum": momentum}

    @override
    def updates(
        self, directions: Tree, learned: Tree, params: Tree, state: Tree, step: Tensor, beta: Tensor
    ) -> Tree:
        del params, state, step
        return tree_map(lambda m, output: m + beta * output.squeeze(-1), directions, learned)


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
        row_limit: largest root mean square of a row of an orthogonal direction; None for no limit.
            Where few rows have a gradient to speak of, the words of a batch in a large vocabulary,
            all of the direction lies in them, and their steps grow with the number of the others.
        rules: name of a tensor -> ``orthogonal`` or ``adam``, for those that shall not take the
            direction that ``orthogonal`` gives them.

    Raises:
        ValueError: beta2 outside (0, 1); floor, period, power, limit or row_limit not positive;
            orthogonal or additive neither true nor false; a rule that does not exist.

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
        row_limit: float | None = None,
        rules: Mapping[str, str] = NO_RULES,
    ) -> None:
        super().__init__()
        check_positive(power=power, limit=limit)
        if row_limit is not None:
            check_positive(row_limit=row_limit)
        for name, flag in (("orthogonal", orthogonal), ("additive", additive)):
            if flag not in (True, False):
                raise ValueError(f"{name} must be true or false, got {flag!r}.")

        self.power = power
        self.limit = limit
        self.orthogonal = orthogonal
        self.additive = additive
        self.row_limit = row_limit
        self.rules = check_rules(rules)
        self.num_outputs = 2 if additive else 1
        self.logit_beta2 = logit_parameter("beta2", beta2)
        self.log_floor = log_parameter("floor", floor)
        self.log_period = log_parameter("period", period)

    @override
    def rule(self, name: str, num_axes: int) -> str:
        default = "orthogonal" if self.orthogonal and num_axes > 1 else "adam"
        chosen = self.rules.get(name, default)
        if chosen == "orthogonal" and num_axes < 2:
            raise ValueError(
                f"the rule orthogonal is for tensors of two axes or more, {name} has {num_axes}."
            )
        return chosen

    @override
    def with_rules(self, rules: Mapping[str, str]) -> Self:
        other = copy(self)
        other.rules = {**self.rules, **check_rules(rules)}
        return other

    @override
    def init_state(self, params: Tree) -> Tree:
        # only tensors that take Adam's direction need a second moment
        second = {}
        for name, param in params.items():
            if self.rule(name, param.ndim) == "adam":
                second[name] = torch.zeros_like(param)
        return super().init_state(params) | {"second": second}

    @override
    def advance(self, grads: Tree, state: Tree, step: Tensor, gamma: Tensor) -> tuple[Tree, Tree]:
        beta2 = self.logit_beta2.sigmoid()
        correction = (1 - beta2**step).sqrt() / (1 - gamma**step)
        momenta = move_momentum(state["momentum"], grads, gamma)

        second = {}
        directions = {}
        for name, momentum in momenta.items():
            if name in state["second"]:
                grad = grads[name]
                second[name] = ema(state["second"][name], grad * grad, beta2)
                directions[name] = correction * momentum * torch.rsqrt(second[name] + TINY)
            else:
                directions[name] = self._orthogonal(momentum)
        return directions, {"momentum": momenta, "second": second}

    @override
    def updates(
        self, directions: Tree, learned: Tree, params: Tree, state: Tree, step: Tensor, beta: Tensor
    ) -> Tree:
        del state
        share = (1 + step * (-self.log_period).exp()) ** -self.power

        def update(direction: Tensor, output: Tensor, param: Tensor) -> Tensor:
            return self._update(direction, output, param, beta) * share

        return tree_map(update, directions, learned, params)

    def _update(self, direction: Tensor, learned: Tensor, param: Tensor, beta: Tensor) -> Tensor:
        """The step of one tensor, before it is annealed."""
        moved = direction * (beta * learned[..., -1]).exp()
        if self.additive:
            moved = moved + beta * learned[..., 0]

        # a tensor that is short enough is divided by the limit, which leaves it as it is
        clipped = moved * self.limit / moved.square().mean().clamp(min=self.limit**2).sqrt()

        size = self.log_floor.exp()
        if param.ndim > 1:  # biases start at zero, gains of norms at one: the floor alone
            size = (param.square().mean() + size**2).sqrt()
        return clipped * size

    def _orthogonal(self, momentum: Tensor) -> Tensor:
        """A momentum with singular values of about 1, scaled to entries of order one."""
        matrix = orthogonalise(momentum.flatten(1))
        matrix = sqrt(max(matrix.shape)) * matrix
        if self.row_limit is not None:
            rows = matrix.square().mean(1, keepdim=True)
            # a row that is short enough is divided by the limit, which leaves it as it is
            matrix = matrix * self.row_limit / rows.clamp(min=self.row_limit**2).sqrt()
        return matrix.reshape(momentum.shape)


def move_momentum(momentum: Tree, grads: Tree, gamma: Tensor) -> Tree:
    """Averages of gradients ``(*shape,)``, moved towards the new ones."""
    return tree_map(lambda m, g: ema(m, g, gamma), momentum, grads)


def check_rules(rules: Mapping[str, str]) -> dict[str, str]:
    """Rules by the names of their tensors.

    Raises:
        ValueError: a rule does not exist.
    """
    for name, rule in rules.items():
        if rule not in RULES:
            raise ValueError(f"the rule of {name} must be one of {', '.join(RULES)}, got {rule!r}.")
    return dict(rules)
