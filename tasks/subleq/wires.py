"""Layers of ReLU units whose weights are wiring plus low rank: O(n log n) numbers where a matrix has O(n^2).

Wires, the outputs of a layer, are numbered; tensors of numbers say which of them a unit reads.

Legend: B batch, S shape of a group of units (any axes), D wires that one unit reads.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn


class Wiring(nn.Module):
    """``y = sum_d weights[d] x[wires[d]]``: every unit reads wires of its own.

    Args:
        wires: numbers ``(*S, D)``.
        weights: broadcast against ``wires``; units share them along axes of size 1.
    """

    wires: Tensor

    def __init__(self, wires: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("wires", wires, persistent=False)
        self.weights = nn.Parameter(weights)
        self.even = _even_spacing(wires)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, B) -> (*S, B)``."""
        if self.even is None:
            read = x[self.wires]
        else:
            offset, strides = self.even
            batch = x.shape[1]
            read = x.as_strided((*self.wires.shape, batch), (*(s * batch for s in strides), 1), offset * batch)
        read = read * self.weights[..., None]
        return read.squeeze(-2) if self.wires.shape[-1] == 1 else read.sum(-2)

    def entries(self) -> tuple[Tensor, Tensor]:
        """Wires and weights of every unit, ``(*S, D)`` each."""
        return self.wires, self.weights.expand(self.wires.shape)


class LowRank(nn.Module):
    """``y = sum_d weights[d] x[wires[d]]``: all units read the same D wires, which makes a matrix of rank D.

    Args:
        wires: numbers ``(D,)``.
        weights: ``(*S, D)``; axes of size 1 are broadcast over the units.
    """

    wires: Tensor

    def __init__(self, wires: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("wires", wires, persistent=False)
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        """``(n, B) -> (*S, B)``."""
        return self.weights @ x[self.wires]

    def entries(self) -> tuple[Tensor, Tensor]:
        """Wires and weights of every unit, ``(*S, D)`` each."""
        return self.wires.expand(self.weights.shape), self.weights


class Units(nn.Module):
    """A group of ReLU units: ``R(sum of terms + bias)``; the layer applies R.

    Args:
        terms: what is summed; shapes broadcast.
        bias: a number, or a tensor that broadcasts.
    """

    def __init__(self, terms: Sequence[Wiring | LowRank], bias: Tensor | float = 0.0) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        offset = torch.as_tensor(bias, dtype=torch.float64)
        self.shape = torch.broadcast_shapes(*(term.entries()[0].shape[:-1] for term in terms), offset.shape)
        self.bias = nn.Parameter(offset.reshape((1,) * (len(self.shape) - offset.ndim) + offset.shape))

    def forward(self, x: Tensor) -> Tensor:
        """``(n, B) -> (units, B)``."""
        total = self.bias[..., None]
        for term in self.terms:
            total = total + term(x)
        return total.expand(*self.shape, x.shape[1]).reshape(-1, x.shape[1])

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """Row, column and value of every weight of the matrix, ``(weights,)`` each."""
        rows = torch.arange(prod(self.shape)).reshape(self.shape)
        parts = []
        for term in self.terms:
            wires, weights = (e.expand(*self.shape, e.shape[-1]) for e in term.entries())
            parts.append((rows[..., None].expand(wires.shape).flatten(), wires.flatten(), weights.detach().flatten()))
        row, column, value = (torch.cat(part) for part in zip(*parts, strict=True))
        return row, column, value


class ReLULayer(nn.Module):
    """``x <- R(W x + b)`` with W in parts.

    Args:
        num_inputs: wires before the layer.
        groups: its units, in the order of the wires after it.
    """

    def __init__(self, num_inputs: int, groups: Sequence[Units]) -> None:
        super().__init__()
        self.groups = nn.ModuleList(groups)
        self.num_inputs, self.num_outputs = num_inputs, sum(prod(group.shape) for group in groups)

    def forward(self, x: Tensor) -> Tensor:
        """``(n_in, B) -> (n_out, B)``."""
        return torch.cat([group(x) for group in self.groups]).relu()

    def num_weights(self) -> int:
        """Weights of W that are not zero."""
        return sum(int((values != 0).sum()) for _, _, values in (group.entries() for group in self.groups))

    def dense(self) -> tuple[Tensor, Tensor]:
        """``W`` of shape ``(n_out, n_in)`` and ``b`` of shape ``(n_out,)``."""
        weights, biases = [], []
        for group in self.groups:
            rows, columns, values = group.entries()
            matrix = values.new_zeros(prod(group.shape), self.num_inputs)
            weights.append(matrix.index_put_((rows, columns.to(rows)), values, accumulate=True))
            biases.append(group.bias.detach().expand(group.shape).flatten())
        return torch.cat(weights), torch.cat(biases)


class Circuit:
    """Layers under construction; ``circuit[name]`` are the numbers of the wires of that name after the last one.

    Args:
        inputs: shape of every named group of wires before the first layer, in order.
    """

    def __init__(self, **inputs: tuple[int, ...]) -> None:
        self.layers: list[ReLULayer] = []
        self._number(inputs)

    def __getitem__(self, name: str) -> Tensor:
        return self._wires[name]

    def layer(self, drop: str = "", **units: Units) -> None:
        """Append a layer, which hands all wires on but those that it drops or replaces.

        Args:
            drop: names, with spaces between them, of wires that no later layer reads.
            units: new wires by name; they come last, or in the place of the wires that had the name.
        """
        kept = [name for name in self._wires if name not in drop.split()]
        groups = {name: Units([wire(self[name])]) for name in kept} | units  # wires are never negative: R(x) = x
        self.layers.append(ReLULayer(self._total, list(groups.values())))
        self._number({name: group.shape for name, group in groups.items()})

    def _number(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._wires, self._total = {}, 0
        for name, shape in shapes.items():
            self._wires[name] = torch.arange(self._total, self._total + prod(shape)).reshape(shape)
            self._total += prod(shape)


def wire(wires: Tensor, weight: float = 1.0) -> Wiring:
    """One wire for each unit, ``(*S,)``, all with the same weight."""
    return Wiring(wires[..., None], torch.tensor([weight], dtype=torch.float64))


def total(wires: Tensor) -> Wiring:
    """The sum over the last axis of ``(*S, D)``."""
    return Wiring(wires, torch.ones(1, dtype=torch.float64))


def rows(table: Sequence[dict[int, float]]) -> Wiring:
    """A few units with different numbers of wires: wire -> weight for each; short ones are filled up with zeros."""
    longest = max(map(len, table))
    wires, weights = torch.zeros(len(table), longest, dtype=torch.long), torch.zeros(len(table), longest, dtype=torch.float64)
    for i, row in enumerate(table):
        wires[i, : len(row)] = torch.tensor(list(row))
        weights[i, : len(row)] = torch.tensor(list(row.values()), dtype=torch.float64)
    return Wiring(wires, weights)


def _even_spacing(wires: Tensor) -> tuple[int, tuple[int, ...]] | None:
    """Offset and strides that give the same numbers, where there are any: then reading them is a view."""
    origin = wires[(0,) * wires.ndim]
    strides = [int(wires.movedim(d, 0)[1].flatten()[0] - origin) if s > 1 else 0 for d, s in enumerate(wires.shape)]
    even = origin.clone()
    for stride, size in zip(strides, wires.shape, strict=True):
        even = even[..., None] + stride * torch.arange(size)
    return (int(origin), tuple(strides)) if torch.equal(even, wires) and min(strides) >= 0 else None
