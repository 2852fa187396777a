"""Learning-rate schedules: factors of the learning rate, as pure functions of the inner step."""

from collections.abc import Callable
from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

# step (float scalar, 0 at the first update) -> factor
Schedule = Callable[[Tensor], Tensor | float]


def constant(step: Tensor) -> float:
    """A factor that is always 1."""
    del step
    return 1.0


@dataclass(frozen=True)
class Cosine:
    """From 1 down to ``final`` along half a cosine.

    Args:
        num_steps: steps until ``final``, which then stays.
        final: the last factor.

    Raises:
        ValueError: ``num_steps`` is not positive, or ``final`` does not lie in [0, 1].

    Source: Loshchilov & Hutter 2017 (arXiv 1608.03983), without restarts.

    >>> Cosine(10)(torch.tensor(0.0)).item()
    1.0
    """

    num_steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        _check_num_steps(self.num_steps)
        if not 0 <= self.final <= 1:
            raise ValueError(f"final must lie between 0 and 1, got {self.final}.")

    def __call__(self, step: Tensor) -> Tensor:
        """The factor of the learning rate at an inner step."""
        share = step.clamp_max(self.num_steps) / self.num_steps
        return self.final + (1 - self.final) * (1 + torch.cos(pi * share)) / 2


@dataclass(frozen=True)
class WarmUp:
    """Another schedule times a line from ``1 / num_steps`` up to 1.

    Args:
        num_steps: steps of the line.
        then: the other schedule, which counts its steps from the start too.

    Raises:
        ValueError: ``num_steps`` is not positive.

    >>> WarmUp(4)(torch.tensor(0.0)).item()
    0.25
    """

    num_steps: int
    then: Schedule = constant

    def __post_init__(self) -> None:
        _check_num_steps(self.num_steps)

    def __call__(self, step: Tensor) -> Tensor:
        """The factor of the learning rate at an inner step."""
        return ((step + 1) / self.num_steps).clamp_max(1) * self.then(step)


def _check_num_steps(num_steps: int) -> None:
    if num_steps < 1:
        raise ValueError(f"num_steps of a schedule must be at least 1, got {num_steps}.")
