"""One use of a parameter by one operation: its activations a and gradients g, row by row.

Legend: G groups (heads, experts, groups of a convolution), R rows (examples x positions), I inputs,
O outputs of an operation; V rows of a table.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.routes import Route


class Rows(NamedTuple):
    """Some rows of a site.

    Args:
        activations: ``(G, R, I)``; None where only their mean is worth reading (indices).
        gradients: ``(G, R, O)``.
    """

    activations: Tensor | None
    gradients: Tensor


class RowOrder(NamedTuple):
    """How the rows of a site, all groups included, follow from examples and positions.

    Args:
        num_examples: of the batch.
        examples_first: row = example x positions + position; else position x examples + example.
    """

    num_examples: int
    examples_first: bool

    def located(self, rows: list[int], num_rows: int) -> list[int]:
        """Where rows of the first order are in this one.

        >>> RowOrder(num_examples=3, examples_first=False).located([0, 1, 2], num_rows=6)
        [0, 3, 1]
        """
        if self.examples_first:
            return rows
        num_positions = num_rows // self.num_examples
        return [row % num_positions * self.num_examples + row // num_positions for row in rows]


@dataclass(frozen=True)
class Site(ABC):
    """What an operation makes of a reading of a parameter, for all rows of a batch.

    Args:
        route: from the parameter to the reading.
        gradients: of the batch's loss with respect to the result.
        num_rows: R.
    """

    route: Route
    gradients: Tensor
    num_rows: int
    order: RowOrder | None = field(default=None, kw_only=True)  # None where nobody knows it

    @property
    def lists_rows(self) -> bool:
        """Whether ``rows`` can be called."""
        return True

    @property
    def folds(self) -> bool:
        """Whether groups read one weight, so that they are more rows."""
        sides = self.sides()
        return len(sides) > 1 and bool((sides == sides[:1]).all())

    def total(self, power: int) -> Tensor:
        """``sum_r (a_r g_r)^power``, shaped like the parameter: the gradient where it is 1."""
        return self.route.back(self.products(power), power)

    @abstractmethod
    def products(self, power: int) -> Tensor:
        """``sum_r (a_r g_r)^power``, shaped like the reading."""

    @abstractmethod
    def mean_activations(self, power: int) -> Tensor:
        """``mean_r a_r^power``; broadcasts to the shape of the reading."""

    @abstractmethod
    def mean_gradients(self, power: int) -> Tensor:
        """``mean_r g_r^power``; broadcasts to the shape of the reading."""

    @abstractmethod
    def rows(self, chosen: Tensor) -> Rows:
        """The rows at some positions ``(n,)`` of all R."""

    @abstractmethod
    def sides(self) -> np.ndarray:
        """Positions of the reading's entries in the flat parameter, as ``(G, I, O)``."""


@dataclass(frozen=True)
class Product(Site):
    """A matrix product; the reading is ``(*G, I, O)``.

    Args:
        activations: ``(*G, R, I)``; gradients are ``(*G, R, O)``.
    """

    activations: Tensor

    @override
    def products(self, power: int) -> Tensor:
        # sums of squares keep the precision of the gradients
        with torch.autocast(self.gradients.device.type, enabled=False):
            return (self.activations**power).mT @ self.gradients**power

    @override
    def mean_activations(self, power: int) -> Tensor:
        return (self.activations**power).mean(-2).unsqueeze(-1)

    @override
    def mean_gradients(self, power: int) -> Tensor:
        return (self.gradients**power).mean(-2, keepdim=True)

    @override
    def rows(self, chosen: Tensor) -> Rows:
        parts = []
        for tensor in (self.activations, self.gradients):
            grouped = tensor.reshape(-1, *tensor.shape[-2:])
            parts.append(grouped.index_select(1, chosen))
        return Rows(*parts)

    @override
    def sides(self) -> np.ndarray:
        return self.route.positions.array.reshape(-1, *self.route.shape[-2:])


@dataclass(frozen=True)
class Lookup(Site):
    """Rows of a table, picked by index; the reading is ``(V, O)``.

    Args:
        indices: ``(R,)``; gradients are ``(R, O)``.
        padding: index whose row has no gradient; -1 for none.
    """

    indices: Tensor
    padding: int = -1

    def _sum(self, values: Tensor) -> Tensor:
        num_entries = self.route.shape[0]
        backward = torch.ops.aten.embedding_dense_backward
        return backward(values, self.indices, num_entries, self.padding, False)

    @override
    def products(self, power: int) -> Tensor:
        return self._sum(self.gradients**power)

    @override
    def mean_activations(self, power: int) -> Tensor:
        del power  # one-hot rows are their own squares
        return self._sum(torch.ones_like(self.gradients[:, :1])) / self.num_rows

    @override
    def mean_gradients(self, power: int) -> Tensor:
        return (self.gradients**power).mean(0, keepdim=True)

    @override
    def rows(self, chosen: Tensor) -> Rows:
        return Rows(None, self.gradients.index_select(0, chosen).unsqueeze(0))

    @override
    def sides(self) -> np.ndarray:
        return self.route.positions.array[None]


@dataclass(frozen=True)
class Entrywise(Site):
    """A product, or a sum, entry by entry; the reading broadcasts to the result.

    Args:
        activations: broadcasts to the gradients; a number for a sum.
    """

    activations: Tensor | float

    def _sum(self, values: Tensor) -> Tensor:
        return values.expand(self.gradients.shape).sum_to_size(self.route.shape)

    def _powers(self, power: int) -> Tensor:
        values = torch.as_tensor(self.activations).to(self.gradients)
        return values**power

    @override
    def products(self, power: int) -> Tensor:
        return self._sum(self._powers(power) * self.gradients**power)

    @override
    def mean_activations(self, power: int) -> Tensor:
        if isinstance(self.activations, Tensor):
            return self._sum(self._powers(power)) / self.num_rows
        return self._powers(power)

    @override
    def mean_gradients(self, power: int) -> Tensor:
        return self._sum(self.gradients**power) / self.num_rows

    @override
    def rows(self, chosen: Tensor) -> Rows:
        return Rows(self._entries(self._powers(1), chosen), self._entries(self.gradients, chosen))

    def _entries(self, values: Tensor, chosen: Tensor) -> Tensor:
        """``(entries of the reading, n, 1)``: each entry is a group of one input and one output."""
        result = self.gradients.shape
        reading = (1,) * (len(result) - len(self.route.shape)) + self.route.shape
        summed = [d for d, size in enumerate(reading) if size != result[d]]
        kept = [d for d in range(len(result)) if d not in summed]

        table = values.expand(result).permute(*kept, *summed)
        table = table.reshape(prod(self.route.shape), self.num_rows)
        return table.index_select(1, chosen).unsqueeze(-1)

    @override
    def sides(self) -> np.ndarray:
        return self.route.positions.array.reshape(-1, 1, 1)
