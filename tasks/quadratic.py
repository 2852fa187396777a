"""Quadratic bowls with known optimum: the oracle for estimators and optimizers."""

from math import log10
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

from tasks.base import Batch, Params, PermutationAxes, TaskFamily, TaskParams


class Quadratic(TaskFamily):
    """``loss(x) = 1/2 sum_i h_i (x_i + noise_i)^2`` with curvatures h_i spaced evenly in log scale.

    Every step of gradient descent multiplies coordinate i by ``1 - lr h_i``, so losses and
    meta-gradients have closed forms.

    Args:
        dim: number of coordinates.
        condition: largest over smallest curvature; the largest is 1.
        noise: standard deviation of the shift of the optimum from batch to batch.
        random_init: draw x_0 from N(0, 1); otherwise x_0 = 1.
        dtype: precision of x.

    Raises:
        ValueError: ``dim`` or ``condition`` is below 1, or ``noise`` is negative.

    >>> family = Quadratic(dim=2, condition=1.0, random_init=False)
    >>> params = family.init(torch.Generator(), {})
    >>> family.loss(params, {"shift": torch.zeros(2)}, {})
    tensor(1.)
    """

    name = "quadratic"
    splits = ("train", "valid")

    def __init__(
        self,
        dim: int = 8,
        condition: float = 10.0,
        noise: float = 0.0,
        random_init: bool = True,
        dtype: torch.dtype = torch.float32,
    ) -> None:
        if dim < 1:
            raise ValueError(f"dim must be at least 1, got {dim}.")
        if condition < 1:
            raise ValueError(f"condition must be at least 1, got {condition}.")
        if noise < 0:
            raise ValueError(f"noise must not be negative, got {noise}.")

        self.curvatures = torch.logspace(0, -log10(condition), dim, dtype=dtype)  # (dim,)
        self.noise = noise
        self.random_init = random_init

    @override
    def sample(self, generator: torch.Generator) -> TaskParams:
        return {}

    @override
    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        shape = self.curvatures.shape
        dtype = self.curvatures.dtype

        if self.random_init:
            x = torch.randn(shape, generator=generator, dtype=dtype)
        else:
            x = torch.ones(shape, dtype=dtype)
        return {"x": x}

    @override
    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        # the same distribution for both splits: nothing is learnt from the data, so nothing leaks
        dim = len(self.curvatures)
        shift = torch.randn(dim, generator=generator, dtype=self.curvatures.dtype)
        return {"shift": self.noise * shift}  # (dim,)

    @override
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        return self._bowl(params["x"] + batch["shift"])

    @override
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        return {"excess_loss": self._bowl(params["x"])}  # without noise the optimum is 0

    @override
    def permutation_axes(self) -> PermutationAxes:
        # coordinates differ in curvature, so none can take the place of another
        return {"x": ("coordinate",)}, frozenset({"coordinate"})

    @override
    def to(self, device: torch.device | str) -> Self:
        self.curvatures = self.curvatures.to(device)
        return self

    @override
    def describe(self) -> dict[str, Any]:
        condition = (self.curvatures[0] / self.curvatures[-1]).item()
        return {
            "task": self.name,
            "dim": len(self.curvatures),
            "condition": condition,
            "noise": self.noise,
        }

    def _bowl(self, distance: Tensor) -> Tensor:
        """``1/2 sum h distance^2``, a scalar."""
        return 0.5 * (self.curvatures * distance.square()).sum()
