"""How a cost grows: exponents of power laws."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch


class Exponent(NamedTuple):
    """Slope of log cost over log size.

    Args:
        value: 1 is linear growth.
        error: its standard error, from the scatter around the line.
    """

    value: float
    error: float

    def __str__(self) -> str:
        """The exponent with its error, as ``1.02 ± 0.03``."""
        return f"{self.value:.2f} ± {self.error:.2f}"


def fit_exponent(sizes: Sequence[float], costs: Sequence[float]) -> Exponent:
    """Least squares of ``log cost = a + exponent log size``.

    Args:
        sizes: at least three, positive, not all equal.
        costs: as many, positive.

    Raises:
        ValueError: too few points, or one that is not positive.

    >>> print(fit_exponent([1, 2, 4], [3, 12, 48]))
    2.00 ± 0.00
    """
    if len(sizes) < 3 or len(set(sizes)) < 2:
        raise ValueError(f"an exponent with its error needs at least 3 sizes, got {list(sizes)}.")
    if min(*sizes, *costs) <= 0:
        raise ValueError(f"sizes and costs must be positive, got {list(sizes)} and {list(costs)}.")

    x = torch.tensor(sizes, dtype=torch.float64).log()
    y = torch.tensor(costs, dtype=torch.float64).log()
    x = x - x.mean()
    y = y - y.mean()

    spread = x.square().sum()
    slope = (x @ y) / spread
    residual = (y - slope * x).square().sum() / (len(sizes) - 2)  # two parameters were fitted

    return Exponent(float(slope), math.sqrt(float(residual / spread)))
