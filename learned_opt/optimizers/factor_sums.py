"""Gradient sets of which only sums over rows are kept."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.utils._pytree import register_dataclass
from typing_extensions import override

from learned_opt.optimizers.factors import MOMENTS, SQUARES, Factors, GradientSet

GRADIENT = "gradient"


@dataclass(frozen=True)
class FactorSums(GradientSet):
    """The sums that some features read; those of two batches add up to that of both.

    Args:
        num_rows: see ``GradientSet``; a scalar, or ``(*shape,)``.
        sums: ``squares`` ``(*shape,)`` and ``moments`` ``(4, *shape)``, as far as they are read,
            and ``gradient`` ``(*shape,)``.

    >>> first = FactorSums(torch.tensor(2), {SQUARES: torch.tensor([5.0])})
    >>> both = first.plus(first).scaled(0.5)
    >>> both.num_rows.item(), both.squares().item()
    (4, 2.5)
    """

    num_rows: float | Tensor
    sums: dict[str, Tensor]

    @classmethod
    def of(cls, factors: Factors, needs: Collection[str], like: Tensor) -> Self:
        """The sums of some rows.

        Args:
            factors: of one parameter.
            needs: what is read, of ``factors.NEEDS``.
            like: a tensor of the dtype and device of the parameter.
        """
        sums = {}
        if SQUARES in needs:
            sums[SQUARES] = factors.squares()
        if MOMENTS in needs:
            sums[MOMENTS] = factors.row_sums()
        return cls(torch.as_tensor(factors.num_rows).to(like), sums)

    def plus(self, other: Self) -> Self:
        """The sums over the rows of both."""
        sums = {name: value + other.sums[name] for name, value in self.sums.items()}
        return type(self)(self.num_rows + other.num_rows, sums)

    def scaled(self, factor: float) -> Self:
        """The same rows, of a loss that is multiplied by a factor."""
        if factor == 1:
            return self
        sums = dict(self.sums)
        if SQUARES in sums:
            sums[SQUARES] = factor**2 * sums[SQUARES]
        if MOMENTS in sums:
            a, a_squares, g, g_squares = sums[MOMENTS]
            sums[MOMENTS] = torch.stack([a, a_squares, factor * g, factor**2 * g_squares])
        return type(self)(self.num_rows, sums)

    def with_gradient(self, gradient: Tensor) -> Self:
        """The same with a gradient that is known already."""
        return type(self)(self.num_rows, {**self.sums, GRADIENT: gradient})

    @override
    def gradient(self) -> Tensor:
        return self.sums[GRADIENT]

    @override
    def squares(self) -> Tensor:
        return self.sums[SQUARES]

    @override
    def row_sums(self) -> Tensor:
        return self.sums[MOMENTS]


# what compiled steps take
register_dataclass(FactorSums)
