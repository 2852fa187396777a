"""Reparametrisation: the same problems in randomly scaled coordinates, an augmentation for meta-training."""

from math import log
from typing import Any, Self

import torch
from torch import Tensor

from tasks.base import Batch, Params, PermutationAxes, TaskFamily, TaskParams

LEVELS = ("global", "tensor", "parameter")


class Reparametrised(TaskFamily):
    """``loss(x) = family.loss(scale * x)``, started at ``x_0 = w_0 / scale``.

    The network and its loss stay, but weights are stored 1 / scale times and gradients become scale times as large:
    an optimizer cannot learn one step size by heart. Scales are drawn log-uniformly, once for each task, so that
    each chain has its own.

    Symmetry: one scale for all tensors or one for each commutes with permutations of axes, and the permutation spec of
    the family stays that of every single task. With one for each parameter it does not: permuting the weights of a
    fixed task without its scales changes the loss, so the spec is refused where it is proved on this loss. What
    keeps the symmetry then is the distribution of tasks (permuting weights and scales together changes nothing, and
    permuted scales are as likely), which is why an augmented run proves the spec on the family inside.

    Args:
        family: the problems.
        level: what shares a scale: ``global`` (everything), ``tensor`` or ``parameter`` (nothing).
        low: smallest scale.
        high: largest scale.

    Raises:
        ValueError: an unknown level, or not 0 < low <= high.

    Source: Metz et al. 2022 (VeLO, arXiv 2211.09760), task augmentation; Moudgil et al. 2025 (Celo, arXiv 2501.12670).
    """

    def __init__(
        self, family: TaskFamily, level: str = "tensor", low: float = 1e-3, high: float = 1e3
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}.")
        if not 0 < low <= high:
            raise ValueError(f"low and high must satisfy 0 < low <= high, got {low} and {high}.")
        self.family, self.level, self.low, self.high = family, level, low, high
        self.name, self.splits = family.name, family.splits

    def sample(self, generator: torch.Generator) -> TaskParams:
        """A task of the family and the scale of every tensor: scalars, or tensors of its shape."""
        inner = self.family.sample(generator)
        params = self.family.init(generator, inner)
        shared = self._draw((), generator)

        def scale(param: Tensor) -> Tensor:
            drawn = shared if self.level == "global" else self._draw(self._shape(param), generator)
            return drawn.to(param.dtype)

        return {"inner": inner, "scale": {name: scale(param) for name, param in params.items()}}

    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        """The family's initial parameters over the scale."""
        params = self.family.init(generator, task["inner"])
        return {name: param / task["scale"][name] for name, param in params.items()}

    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        """The family's."""
        return self.family.batch(generator, task["inner"], split)

    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        """The family's at the scaled parameters."""
        return self.family.loss(_scaled(params, task), batch, task["inner"])

    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        """The family's figures at the scaled parameters."""
        return self.family.evaluate(_scaled(params, task), task["inner"])

    def rows(self, split: str) -> Tensor | None:
        """The family's."""
        return self.family.rows(split)

    def permutation_axes(self) -> PermutationAxes | None:
        """The family's."""
        return self.family.permutation_axes()

    def to(self, device: torch.device | str) -> Self:
        """Move the family; scales lie in the tasks."""
        self.family = self.family.to(device)
        return self

    def describe(self) -> dict[str, Any]:
        """The family's description and the scales."""
        return {
            **self.family.describe(),
            "scales": f"{self.low:g} to {self.high:g}, {self.level} level",
        }

    def _shape(self, param: Tensor) -> torch.Size:
        return param.shape if self.level == "parameter" else torch.Size()

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        return (log(self.low) + uniform * (log(self.high) - log(self.low))).exp()


def _scaled(params: Params, task: TaskParams) -> Params:
    return {name: param * task["scale"][name] for name, param in params.items()}
