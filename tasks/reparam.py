"""Reparametrisation: the same problems in randomly scaled coordinates, to augment meta-training."""

from math import log
from typing import Any

import torch
from torch import Tensor
from typing_extensions import override

from tasks.base import Params, TaskFamily, TaskParams, WrappedFamily

LEVELS = ("global", "tensor", "parameter")


class Reparametrised(WrappedFamily):
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

        super().__init__(family)
        self.level = level
        self.low = low
        self.high = high

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
        params = super().init(generator, task)
        return {name: param / task["scale"][name] for name, param in params.items()}

    @override
    def inner_task(self, task: TaskParams) -> TaskParams:
        return task["inner"]

    @override
    def effective(self, params: Params, task: TaskParams) -> Params:
        return {name: param * task["scale"][name] for name, param in params.items()}

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
