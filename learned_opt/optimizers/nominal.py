"""The hand-designed half of a learned optimizer: its direction before anything is learned.

A nominal part keeps a momentum, of which the learned function sees the direction, and decides how
what was learned changes the step. Its decay gamma and the step size alpha belong to the optimizer,
see ``UNFOptimizer``.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers.base import check_positive
from learned_opt.optimizers.features import TINY, ema
from learned_opt.optimizers.hand.base import log_parameter, logit_parameter
from learned_opt.optimizers.orthogonal_direction import orthogonal_direction
from learned_opt.optimizers.tensor_rules import NO_RULES, TensorRules
from learned_opt.optimizers.update_scale import ENTRY, ORTHOGONAL_PARAMETER, PARAMETER
from learned_opt.symmetry.roles import num_pieces
from learned_opt.symmetry.spec import PermutationSpec

# a line to zero begins at the size that steps of unknown length have after this part of the way
LINE_PARTS = 10


class Nominal(nn.Module, ABC):
    """What ``UNFOptimizer`` does at beta = 0.

    Attributes:
        num_features: channels that the learned function reads beside those of ``features``.
        num_outputs: of the learned function, for each weight.
        update_scale: as of ``MetaOptimizer``, with the learned function.
    """

    update_scale: str = ENTRY
    num_features: int
    num_outputs: int

    def rule(self, name: str, num_axes: int, spec: PermutationSpec) -> str:
        """What a tensor of that name and number of axes is treated by, in a word."""
        del name, num_axes, spec
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

    def init_state(self, params: Tree, spec: PermutationSpec) -> Tree:
        """A zero momentum for every parameter."""
        del spec
        return {"momentum": tree_map(torch.zeros_like, params)}

    def share(self, step: Tensor) -> Tensor | float:
        """What steps have fallen to where nobody knows the last one; 1 is their full size."""
        del step
        return 1.0

    def share_of_line(self, num_steps: Tensor) -> Tensor | float:
        """Where the line begins along which steps fall to zero in a training of known length."""
        del num_steps
        return 1.0

    @abstractmethod
    def advance(
        self, grads: Tree, state: Tree, step: Tensor, gamma: Tensor, spec: PermutationSpec
    ) -> tuple[Tree, Tree]:
        """Read a gradient.

        Args:
            grads: ``(*shape,)`` for every parameter.
            state: of the step before; may hold more than the nominal part remembers.
            step: number of gradients seen, this one included.
            gamma: decay of the momentum.
            spec: of the weight space.

        Returns:
            tuple[Tree, Tree]: where to go, up to sign and size, ``(*shape,)`` for every parameter;
            and the next state.
        """

    @abstractmethod
    def updates(
        self, directions: Tree, learned: Tree | None, params: Tree, state: Tree, beta: Tensor
    ) -> Tree:
        """The steps of all tensors, before ``-alpha`` and before they fall.

        Args:
            directions: as ``advance`` gives them.
            learned: ``(*shape, num_outputs)``, the outputs of the learned function; None where
                they are all zero.
            params: ``(*shape,)``.
            state: as ``advance`` gives it.
            beta: weight of the learned function.

        Returns:
            Tree: ``(*shape,)`` for every parameter.
        """


class Momentum(Nominal):
    """SGD with momentum: ``m + beta f``. The paper's."""

    num_features = 0
    num_outputs = 1

    @override
    def advance(
        self, grads: Tree, state: Tree, step: Tensor, gamma: Tensor, spec: PermutationSpec
    ) -> tuple[Tree, Tree]:
        del step, spec
        momentum = move_momentum(state["momentum"], grads, gamma)
        return momentum, {"momentum": momentum}

    @override
    def updates(
        self, directions: Tree, learned: Tree | None, params: Tree, state: Tree, beta: Tensor
    ) -> Tree:
        del params, state
        if learned is None:
            return directions
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
        by_role: tensors whose rows are picked by index take Adam's direction all the same, and of
            matrices stacked in one tensor, queries, keys and values, each has its own.
        rules: name of a tensor -> ``orthogonal`` or ``adam``, over all others.

    Raises:
        ValueError: beta2 outside (0, 1); floor, period, power, limit or row_limit not positive;
            orthogonal, additive or by_role neither true nor false; a rule that does not exist.

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
        by_role: bool = False,
        rules: Mapping[str, str] = NO_RULES,
    ) -> None:
        super().__init__()
        check_positive(power=power, limit=limit)
        if row_limit is not None:
            check_positive(row_limit=row_limit)
        if additive not in (True, False):
            raise ValueError(f"additive must be true or false, got {additive!r}.")

        self.power = power
        self.limit = limit
        self.additive = additive
        self.row_limit = row_limit
        self.rules = TensorRules(orthogonal, by_role, rules)
        self.num_outputs = 2 if additive else 1
        self.update_scale = ORTHOGONAL_PARAMETER if orthogonal else PARAMETER
        self.logit_beta2 = logit_parameter("beta2", beta2)
        self.log_floor = log_parameter("floor", floor)
        self.log_period = log_parameter("period", period)

    @override
    def share(self, step: Tensor) -> Tensor:
        return (1 + step * (-self.log_period).exp()) ** -self.power

    @override
    def share_of_line(self, num_steps: Tensor) -> Tensor:
        # longer trainings take smaller steps from the first on
        return self.share(num_steps / LINE_PARTS)

    @override
    def rule(self, name: str, num_axes: int, spec: PermutationSpec) -> str:
        return self.rules.rule(name, num_axes, spec)

    @override
    def with_rules(self, rules: Mapping[str, str]) -> Self:
        other = copy(self)
        other.rules = self.rules.with_named(rules)
        return other

    @override
    def init_state(self, params: Tree, spec: PermutationSpec) -> Tree:
        # only tensors that take Adam's direction need a second moment
        second = {}
        for name, param in params.items():
            if self.rule(name, param.ndim, spec) == "adam":
                second[name] = torch.zeros_like(param)
        return super().init_state(params, spec) | {"second": second}

    @override
    def advance(
        self, grads: Tree, state: Tree, step: Tensor, gamma: Tensor, spec: PermutationSpec
    ) -> tuple[Tree, Tree]:
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
                pieces = num_pieces(spec, name) if self.rules.by_role else 1
                directions[name] = orthogonal_direction(momentum, pieces, self.row_limit)
        return directions, {"momentum": momenta, "second": second}

    @override
    def updates(
        self, directions: Tree, learned: Tree | None, params: Tree, state: Tree, beta: Tensor
    ) -> Tree:
        del state
        moved = directions
        if learned is not None:
            moved = tree_map(partial(self._changed, beta), directions, learned)
        return tree_map(self._sized, moved, params)

    def _changed(self, beta: Tensor, direction: Tensor, learned: Tensor) -> Tensor:
        """A direction as the learned function changes it."""
        moved = direction * (beta * learned[..., -1]).exp()
        return moved + beta * learned[..., 0] if self.additive else moved

    def _sized(self, moved: Tensor, param: Tensor) -> Tensor:
        """The step of one tensor, before it falls."""
        # 1 for a tensor that is short enough
        clipped = self.limit / _mean_square(moved).clamp(min=self.limit**2).sqrt()

        size = self.log_floor.exp()
        if param.ndim > 1:  # biases start at zero, gains of norms at one: the floor alone
            size = (_mean_square(param) + size**2).sqrt()
        return moved * (clipped * size)


def _mean_square(tensor: Tensor) -> Tensor:
    """In one pass and without a temporary tensor, where nothing is compiled."""
    return torch.linalg.vector_norm(tensor) ** 2 / tensor.numel()


def move_momentum(momentum: Tree, grads: Tree, gamma: Tensor) -> Tree:
    """Averages of gradients ``(*shape,)``, moved towards the new ones."""
    return tree_map(lambda m, g: ema(m, g, gamma), momentum, grads)
