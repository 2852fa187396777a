"""The draws of one forward pass, in their order."""

import torch
from torch import Tensor

from tasks.keyed import bits


class Draws:
    """Numbers that depend on a key and on how many draws came before.

    Args:
        key: scalar int64; None puts the mean of every draw in its stead.

    Attributes:
        key: as it came.
        num_draws: how many draws there were.
    """

    def __init__(self, key: Tensor | None) -> None:
        self.key = key
        self.num_draws = 0

    def uniform(self, shape: tuple[int, ...]) -> Tensor:
        """Numbers uniform in [0, 1), float32."""
        self.num_draws += 1
        if self.key is None:
            return torch.full(shape, 0.5)
        return bits.uniform(self.key, self.num_draws, shape)

    def normal(self, shape: tuple[int, ...]) -> Tensor:
        """Standard normal numbers, float32."""
        self.num_draws += 1
        if self.key is None:
            return torch.zeros(shape)
        return bits.normal(self.key, self.num_draws, shape)

    def kept(self, rate: float, shape: tuple[int, ...]) -> Tensor | None:
        """What dropout of this rate keeps, bool; None where it keeps all."""
        numbers = self.uniform(shape)
        return None if self.key is None else numbers >= rate
