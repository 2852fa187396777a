"""The way from a parameter to the tensor that an operation reads: transposed, cut, scaled."""

from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from typing import Self

import numpy as np
import torch
from torch import Tensor

# ``(parameter, power) -> reading``; constants that the way multiplies with are raised to the power
Forward = Callable[[Tensor, int], Tensor]


@dataclass(frozen=True, eq=False)
class Positions:
    """Position in the flat parameter of each entry of a reading; equal only to itself.

    Args:
        array: int64, shaped like the reading.
    """

    array: np.ndarray


@dataclass(frozen=True)
class Route:
    """A linear way on which every entry of the reading comes from one entry of the parameter.

    Args:
        param_shape: of the parameter.
        positions: of the entries of the reading; routes that are alike share it.
        forward: the way; None where parameter and reading are the same.
    """

    param_shape: tuple[int, ...]
    positions: Positions
    forward: Forward | None = None

    @classmethod
    def along(cls, param_shape: tuple[int, ...], forward: Forward | None = None) -> Self:
        """The route of a way, whose positions are read off numbered entries.

        >>> Route.along((2, 3), lambda param, power: param.T).positions.array.tolist()
        [[0, 3], [1, 4], [2, 5]]
        """
        numbers = torch.arange(prod(param_shape), dtype=torch.float64).reshape(param_shape)
        if forward is not None:
            numbers = forward(numbers, 0)
        positions = Positions(numbers.round().long().numpy())
        return cls(tuple(param_shape), positions, forward)

    @property
    def shape(self) -> tuple[int, ...]:
        """Of the reading."""
        return self.positions.array.shape

    def back(self, reading: Tensor, power: int = 1) -> Tensor:
        """Sum a tensor shaped like the reading up to one shaped like the parameter.

        Args:
            reading: ``(*shape,)``.
            power: of the constants that the way multiplies with: 2 for squares, 0 for counts.
        """
        forward = self.forward
        if forward is None:
            return reading
        start = reading.new_zeros(self.param_shape)
        pull = torch.func.vjp(lambda param: forward(param, power), start)[1]
        return pull(reading)[0]

    def copies(self) -> Tensor:
        """How often the reading has each entry of the parameter: ``(*param_shape,)``."""
        count = np.bincount(self.positions.array.ravel(), minlength=prod(self.param_shape))
        return torch.from_numpy(count).reshape(self.param_shape)
