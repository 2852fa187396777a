"""Reparametrisation: the same problems in randomly scaled coordinates, to augment meta-training."""

from collections.abc import Mapping
from math import log
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from tasks.base import Batch, Params, PermutationAxes, TaskFamily, TaskParams

LEVELS = ("global", "tensor", "parameter")


class Reparametrised(TaskFamily):
    """``loss(x) = family.loss(scale * x)``, started at ``x_0 = w_0 / scale``.

    The network and its loss stay, but weights are stored 1 / scale times and gradients become
    scale times as large: an optimizer cannot learn one step size by heart. Scales are drawn
    log-uniformly, once for each task, so that each chain has its own.

    Symmetry: one scale for all tensors or one for each commutes with permutations of axes, and
    the permutation spec of the family stays that of every single task. With one for each
    parameter it does not: permuting the weights of a fixed task without its scales changes the
    loss, so the spec is refused where it is proved on this loss. What keeps the symmetry then
    is the distribution of tasks (permuting weights and scales together changes nothing, and
    permuted scales are as likely), which is why an augmented run proves the spec on the family
    inside.

    Args:
        family: the problems.
        level: what shares a scale: ``global`` (everything), ``tensor`` or ``parameter`` (nothing).
        low: smallest scale.
        high: largest scale.

    Raises:
        ValueError: an unknown level, or not 0 < low <= high.

    Source: Metz et al. 2022 (VeLO, arXiv 2211.09760), task augmentation; Moudgil et al. 2025
    (Celo, arXiv 2501.12670).
    """

    def __init__(
        self, family: TaskFamily, level: str = "tensor", low: float = 1e-3, high: float = 1e3
    ) -> None:
        if level not in LEVELS:
            raise ValueError(f"level must be one of {', '.join(LEVELS)}, got {level!r}.")
        if not 0 < low <= high:
            raise ValueError(f"low and high must satisfy 0 < low <= high, got {low} and {high}.")

        self.family = family
        self.level = level
        self.low = low
        self.high = high
        self.name = family.name
        self.splits = family.splits

    @override
    def sample(self, generator: torch.Generator) -> TaskParams:
        inner = self.family.sample(generator)
        params = self.family.init(generator, inner)

        # drawn at every level, used at one: the draws that come after it are the same
        shared = self._draw((), generator)
        scales: Params = {}
        for name, param in params.items():
            scale = shared
            if self.level != "global":
                scale = self._draw(self._scale_shape(param), generator)
            scales[name] = scale.to(param.dtype)

        return {"inner": inner, "scale": scales}

    @override
    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        params = self.family.init(generator, task["inner"])
        return {name: param / task["scale"][name] for name, param in params.items()}

    @override
    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        return self.family.batch(generator, task["inner"], split)

    @override
    def batches(
        self, generator: torch.Generator, task: TaskParams, num: int, split: str = "train"
    ) -> Batch:
        return self.family.batches(generator, task["inner"], num, split)

    @override
    def without_noise(self, batch: Batch) -> Batch:
        return self.family.without_noise(batch)

    @override
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        return self.family.loss(_scaled(params, task), batch, task["inner"])

    @override
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        return self.family.evaluate(_scaled(params, task), task["inner"])

    @override
    def update_multipliers(self, scale: str) -> Mapping[str, float]:
        return self.family.update_multipliers(scale)

    @override
    def rows(self, split: str) -> Tensor | None:
        return self.family.rows(split)

    @override
    def permutation_axes(self) -> PermutationAxes | None:
        return self.family.permutation_axes()

    @override
    def to(self, device: torch.device | str) -> Self:
        self.family = self.family.to(device)  # scales lie in the tasks
        return self

    @override
    def describe(self) -> dict[str, Any]:
        scales = f"{self.low:g} to {self.high:g}, {self.level} level"
        return {**self.family.describe(), "scales": scales}

    def _scale_shape(self, param: Tensor) -> torch.Size:
        return param.shape if self.level == "parameter" else torch.Size()

    def _draw(self, shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
        """Scales of a shape, log-uniform from ``low`` to ``high``, float64."""
        uniform = torch.rand(shape, generator=generator, dtype=torch.float64)
        return (log(self.low) + uniform * (log(self.high) - log(self.low))).exp()


def _scaled(params: Params, task: TaskParams) -> Params:
    """The parameters of the family inside."""
    return {name: param * task["scale"][name] for name, param in params.items()}
