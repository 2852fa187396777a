"""How many inner steps a chain runs before it restarts."""

from abc import ABC, abstractmethod
from math import exp, log

import torch
from typing_extensions import override

from learned_opt.core.checks import check_at_least


class Truncation(ABC):
    """A distribution of horizons, in inner steps."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> int:
        """Draw the number of inner steps until the restart."""


class Constant(Truncation):
    """Every chain restarts after the same number of inner steps.

    Args:
        horizon: inner steps until the restart.

    Raises:
        ValueError: the horizon is not positive.

    >>> Constant(500).sample(torch.Generator())
    500
    """

    def __init__(self, horizon: int) -> None:
        check_at_least(1, horizon=horizon)
        self.horizon = horizon

    @override
    def sample(self, generator: torch.Generator) -> int:
        return self.horizon


class LogUniform(Truncation):
    """Horizons whose logarithm is uniform, rounded to whole inner steps.

    Args:
        shortest: least inner steps until the restart.
        longest: most inner steps until the restart.

    Raises:
        ValueError: the bounds are not positive or not in order.

    Source: Metz et al. 2022 (arXiv 2203.11860).

    >>> 10 <= LogUniform(10, 1000).sample(torch.Generator().manual_seed(0)) <= 1000
    True
    """

    def __init__(self, shortest: int, longest: int) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(
                "shortest and longest must satisfy 1 <= shortest <= longest, "
                f"got {shortest}, {longest}."
            )
        self.shortest = shortest
        self.longest = longest

    @override
    def sample(self, generator: torch.Generator) -> int:
        uniform = torch.rand((), generator=generator, dtype=torch.float64).item()
        return round(exp(log(self.shortest) + uniform * (log(self.longest) - log(self.shortest))))
