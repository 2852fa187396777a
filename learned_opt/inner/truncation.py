"""How many inner steps a chain runs before it restarts."""

from abc import ABC, abstractmethod
from math import exp, log

import torch


class Truncation(ABC):
    """A distribution of horizons, in inner steps."""

    @abstractmethod
    def sample(self, generator: torch.Generator) -> int:
        """Draw the inner steps until restart."""


class Constant(Truncation):
    """Every chain restarts after ``horizon`` inner steps."""

    def __init__(self, horizon: int) -> None:
        if horizon < 1:
            raise ValueError(f"horizon must be at least 1, got {horizon}.")
        self.horizon = horizon

    def sample(self, generator: torch.Generator) -> int:
        """The constant."""
        return self.horizon


class LogUniform(Truncation):
    """Horizons drawn log-uniformly from ``[shortest, longest]``, as in Metz et al. 2022 (arXiv 2203.11860)."""

    def __init__(self, shortest: int, longest: int) -> None:
        if not 1 <= shortest <= longest:
            raise ValueError(
                f"shortest and longest must satisfy 1 <= shortest <= longest, got {shortest}, {longest}."
            )
        self.shortest, self.longest = shortest, longest

    def sample(self, generator: torch.Generator) -> int:
        """One draw, rounded to an integer."""
        uniform = torch.rand((), generator=generator, dtype=torch.float64).item()
        return round(exp(log(self.shortest) + uniform * (log(self.longest) - log(self.shortest))))
