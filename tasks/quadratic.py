"""Quadratic bowls with known optimum: the oracle for estimators and optimizers."""

from math import log10
from typing import Any, Self

import torch
from torch import Tensor

from tasks.base import Batch, Params, PermutationAxes, TaskFamily, TaskParams


class Quadratic(TaskFamily):
    """``loss(x) = 1/2 sum_i h_i (x_i + noise_i)^2`` with curvatures h_i spaced evenly in log scale.

    Every step of gradient descent multiplies coordinate i by ``1 - lr h_i``, so losses and meta-gradients have
    closed forms.

    Args:
        dim: number of coordinates.
        condition: largest over smallest curvature; the largest is 1.
        noise: standard deviation of the shift of the optimum from batch to batch.
        random_init: draw x_0 from N(0, 1); otherwise x_0 = 1.
        dtype: precision of x.
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
        self.curvatures = torch.logspace(0, -log10(condition), dim, dtype=dtype)
        self.noise, self.random_init = noise, random_init

    def sample(self, generator: torch.Generator) -> TaskParams:
        """One task only."""
        return {}

    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        """x_0 of shape ``(dim,)``."""
        shape, dtype = self.curvatures.shape, self.curvatures.dtype
        x = (
            torch.randn(shape, generator=generator, dtype=dtype)
            if self.random_init
            else torch.ones(shape, dtype=dtype)
        )
        return {"x": x}

    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        """The shift of the optimum, ``(dim,)``; the same distribution for both splits."""
        return {
            "shift": self.noise
            * torch.randn(len(self.curvatures), generator=generator, dtype=self.curvatures.dtype)
        }

    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        """``1/2 sum h (x + shift)^2``."""
        return 0.5 * (self.curvatures * (params["x"] + batch["shift"]).square()).sum()

    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        """The loss without noise, whose optimum is 0."""
        return {"excess_loss": 0.5 * (self.curvatures * params["x"].square()).sum()}

    def permutation_axes(self) -> PermutationAxes:
        """Coordinates differ in curvature: their axis is fixed."""
        return {"x": ("coordinate",)}, frozenset({"coordinate"})

    def to(self, device: torch.device | str) -> Self:
        """Move the curvatures."""
        self.curvatures = self.curvatures.to(device)
        return self

    def describe(self) -> dict[str, Any]:
        """Size, condition and noise."""
        condition = (self.curvatures[0] / self.curvatures[-1]).item()
        return {
            "task": self.name,
            "dim": len(self.curvatures),
            "condition": condition,
            "noise": self.noise,
        }
