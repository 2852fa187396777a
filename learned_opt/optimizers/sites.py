"""One use of a parameter by one operation: its activations a and gradients g, row by row.

Legend: G groups (heads, experts, groups of a convolution), R rows (examples x positions), I inputs,
O outputs of an operation; V rows of a table.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
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


@dataclass(frozen=True)
class Convolution(Site):
    """A convolution; the reading is ``(O, I / G, *kernel)``, transposed ``(I, O / G, *kernel)``.

    Args:
        activations: the images ``(B, C, *size)``; gradients are ``(B, O, *positions)``.
        stride: of the kernel, for each direction; so are the next two.
        padding: of the images.
        dilation: of the kernel.
        transposed: whether it is a transposed convolution.
        output_padding: of a transposed convolution.
        groups: G.
    """

    activations: Tensor
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    transposed: bool
    output_padding: tuple[int, ...]
    groups: int

    def _weight_gradient(self, activations: Tensor, gradients: Tensor, shape: tuple) -> Tensor:
        like = activations.new_zeros(shape)
        settings = (self.stride, self.padding, self.dilation, self.transposed, self.output_padding)
        backward = torch.ops.aten.convolution_backward
        mask = [False, True, False]
        results = backward(gradients, activations, like, None, *settings, self.groups, mask)
        return results[1]

    @override
    def products(self, power: int) -> Tensor:
        shape = self.route.shape
        return self._weight_gradient(self.activations**power, self.gradients**power, shape)

    @override
    def mean_activations(self, power: int) -> Tensor:
        values = self.activations**power
        ones = [1] * (values.ndim - 2)
        if self.transposed:  # without the borders: the mean over all positions
            return _over_positions(values).reshape(-1, 1, *ones)

        # the sum over rows of a patch is what an output of ones has for its gradient
        groups, (outputs, *rest) = self.groups, self.route.shape
        batch, _, *positions = self.gradients.shape
        of_ones = values.new_ones(batch, groups, *positions)
        means = self._weight_gradient(values, of_ones, (groups, *rest)) / self.num_rows
        return means.repeat_interleave(outputs // groups, 0)

    @override
    def mean_gradients(self, power: int) -> Tensor:
        means = _over_positions(self.gradients**power)
        ones = [1] * (self.gradients.ndim - 2)
        if not self.transposed:
            return means.reshape(-1, 1, *ones)
        per_group = means.reshape(self.groups, -1)
        inputs = self.route.shape[0]
        return per_group.repeat_interleave(inputs // self.groups, 0).reshape(inputs, -1, *ones)

    @override
    def rows(self, chosen: Tensor) -> Rows:
        if self.transposed or self.activations.ndim > 4:
            raise ValueError("rows of transposed and of 3d convolutions cannot be listed.")
        num_positions = self.num_rows // len(self.gradients)
        examples = chosen // num_positions
        positions = chosen % num_positions

        images = self.activations.index_select(0, examples)
        kernel = self.route.shape[2:]
        settings = (kernel, self.dilation, self.padding, self.stride)
        if images.ndim == 3:  # unfold knows images, a sequence is one of height 1
            images = images.unsqueeze(2)
            settings = tuple(
                (first, *each) for first, each in zip((1, 1, 0, 1), settings, strict=True)
            )
        patches = functional.unfold(images, *settings)  # (n, C * kernel, positions)
        gradients = self.gradients.index_select(0, examples).flatten(2)
        return Rows(self._at(patches, positions), self._at(gradients, positions))

    def _at(self, values: Tensor, positions: Tensor) -> Tensor:
        """``(G, n, channels)`` of ``(n, G * channels, positions)``: one position of each row."""
        index = positions.reshape(-1, 1, 1).expand(-1, values.shape[1], 1)
        chosen = values.gather(2, index).squeeze(2)
        return chosen.unflatten(1, (self.groups, -1)).transpose(0, 1)

    @override
    def sides(self) -> np.ndarray:
        outputs = self.route.shape[0] // self.groups
        return self.route.positions.array.reshape(self.groups, outputs, -1).swapaxes(1, 2)


def _over_positions(values: Tensor) -> Tensor:
    """The mean of ``(B, C, *positions)`` over all but the channels."""
    return values.flatten(2).mean((0, 2))
