"""Step sizes that follow how well the last step agrees with the gradient that came after it."""

from collections.abc import Callable, Mapping
from math import log
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers.base import check_positive
from learned_opt.optimizers.features import TINY
from learned_opt.optimizers.hand.base import log_parameter
from learned_opt.optimizers.nominal import Nominal
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import with_modules


class AdaptiveScale(Nominal):
    """Another nominal part, the steps of each tensor times ``exp(s)``.

    ``s <- s + rate cos(g_t, d_{t-1})`` with the gradient and the direction of the step before,
    within ``log smallest`` and ``log largest``, from 0. The derivative of the loss by the size of
    the last step is ``-g_t . d_{t-1}`` times a positive number, so s makes normalised gradient
    steps in it. Where steps are too short by far, they agree, and grow by a factor e every 1 / rate
    steps; where they overshoot they shrink; gradients that are noise change nothing in the mean.
    So a tensor can reach values that lie far from where it starts, and settles where it is close.
    Neither the scale of the loss nor that of a tensor matters.

    Args:
        nominal: constructor of the other one.
        rate: of s; learned.
        smallest: least factor.
        largest: greatest factor.

    Raises:
        ValueError: a rate or factor that is not positive, or ``smallest`` above ``largest``.

    Source: Baydin et al. 2018 (arXiv 1703.04782), there one learning rate for all, moved by the
        inner product itself; logarithm, cosine and a scale for each tensor are ours.
    """

    def __init__(
        self,
        nominal: Callable[[], Nominal],
        rate: float = 0.1,
        smallest: float = 1e-2,
        largest: float = 1e3,
    ) -> None:
        super().__init__()
        check_positive(smallest=smallest, largest=largest)
        if smallest > largest:
            raise ValueError(f"smallest must be at most largest, {largest}, got {smallest}.")

        self.nominal = nominal()
        self.num_features = self.nominal.num_features
        self.num_outputs = self.nominal.num_outputs
        self.update_scale = self.nominal.update_scale
        self.log_rate = log_parameter("rate", rate)
        self.smallest = smallest
        self.largest = largest

    @override
    def share(self, step: Tensor) -> Tensor | float:
        return self.nominal.share(step)

    @override
    def share_of_line(self, num_steps: Tensor) -> Tensor | float:
        return self.nominal.share_of_line(num_steps)

    @override
    def rule(self, name: str, num_axes: int, spec: PermutationSpec) -> str:
        return self.nominal.rule(name, num_axes, spec)

    @override
    def with_rules(self, rules: Mapping[str, str]) -> Self:
        return with_modules(self, nominal=self.nominal.with_rules(rules))

    @override
    def init_state(self, params: Tree, spec: PermutationSpec) -> Tree:
        scales = {
            "log_scale": tree_map(lambda param: param.new_zeros(()), params),
            "last_direction": tree_map(torch.zeros_like, params),
        }
        return self.nominal.init_state(params, spec) | scales

    @override
    def advance(
        self, grads: Tree, state: Tree, step: Tensor, gamma: Tensor, spec: PermutationSpec
    ) -> tuple[Tree, Tree]:
        def moved(log_scale: Tensor, grad: Tensor, last: Tensor) -> Tensor:
            log_scale = log_scale + self.log_rate.exp() * cosine(grad, last)
            return log_scale.clamp(log(self.smallest), log(self.largest))

        log_scale = tree_map(moved, state["log_scale"], grads, state["last_direction"])
        directions, inner = self.nominal.advance(grads, state, step, gamma, spec)
        return directions, {**inner, "log_scale": log_scale, "last_direction": directions}

    @override
    def updates(
        self, directions: Tree, learned: Tree | None, params: Tree, state: Tree, beta: Tensor
    ) -> Tree:
        steps = self.nominal.updates(directions, learned, params, state, beta)
        return tree_map(lambda towards, s: towards * s.exp(), steps, state["log_scale"])


def cosine(left: Tensor, right: Tensor) -> Tensor:
    """Of the angle between two tensors of one shape: a scalar, 0 where one of them is 0.

    >>> round(cosine(torch.tensor([3.0, 4.0]), torch.tensor([4.0, 3.0])).item(), 6)
    0.96
    """
    return (
        torch.dot(left.flatten(), right.flatten()) * _inverse_length(left) * _inverse_length(right)
    )


def _inverse_length(tensor: Tensor) -> Tensor:
    return torch.rsqrt(torch.linalg.vector_norm(tensor) ** 2 + TINY)
