"""Layers of ReLU units whose matrices are wiring plus low rank.

They hold O(n log n) numbers where dense ones have O(n^2). Wires are the outputs of a layer. They
are numbered, and tensors of numbers say which of them a unit reads.

Legend: B batch, S shape of a group of units (any axes), D wires that one unit reads.
"""

from collections.abc import Mapping, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

Term = tuple[Tensor, Tensor]  # wires (*S, D) and weights that broadcast to them


class Units(NamedTuple):
    """A group of units ``R(sum_d weights[d] x[wires[d]] + bias)``.

    Args:
        wires: numbers ``(*S, D)`` of the wires that each unit reads.
        weights: as ``wires``.
        bias: ``(*S,)``.
    """

    wires: Tensor
    weights: Tensor
    bias: Tensor


def units(*terms: Term, bias: Tensor | float = 0.0) -> Units:
    """Units that read the wires of all terms, whose shapes broadcast."""
    offset = torch.as_tensor(bias, dtype=torch.float64)
    shape = torch.broadcast_shapes(*(wires.shape[:-1] for wires, _ in terms), offset.shape)

    all_wires = []
    all_weights = []
    for wires, weights in terms:
        all_wires.append(wires.expand(*shape, -1))
        all_weights.append(weights.expand(*shape, wires.shape[-1]))
    return Units(torch.cat(all_wires, -1), torch.cat(all_weights, -1), offset.expand(shape))


def wire(wires: Tensor, weight: float = 1.0) -> Term:
    """One wire ``(*S,)`` for each unit."""
    return total(wires[..., None], weight)


def total(wires: Tensor, weight: float = 1.0) -> Term:
    """All wires along the last axis of ``(*S, D)``, with the same weight."""
    return wires, torch.tensor([weight], dtype=torch.float64)


def rows(table: Sequence[Mapping[int, float]]) -> Term:
    """Wire -> weight for each of a few units; rows are filled up with weights of zero."""
    shape = (len(table), max(len(row) for row in table))
    wires = torch.zeros(shape, dtype=torch.long)
    weights = torch.zeros(shape, dtype=torch.float64)

    for i, row in enumerate(table):
        wires[i, : len(row)] = torch.tensor(list(row))
        weights[i, : len(row)] = torch.tensor(list(row.values()), dtype=torch.float64)
    return wires, weights


class SparseMatrix(nn.Module):
    """A matrix whose rows hold few numbers each.

    Args:
        groups: units, without their biases; wires without a weight are left out.
        num_columns: wires to read from.
    """

    columns: Tensor
    offsets: Tensor

    def __init__(self, groups: Sequence[Units], num_columns: int) -> None:
        super().__init__()
        columns = []
        values = []
        counts = []
        for group in groups:
            used = group.weights != 0
            columns.append(group.wires[used])
            values.append(group.weights[used])
            counts.append(used.sum(-1).flatten())

        row_sizes = torch.cat(counts)  # numbers of each row
        self.shape = (len(row_sizes), num_columns)

        offsets = torch.cat([row_sizes.new_zeros(1), row_sizes.cumsum(0)])
        self.register_buffer("columns", torch.cat(columns).int())
        self.register_buffer("offsets", offsets.int())
        self.values = nn.Parameter(torch.cat(values))

    @override
    def forward(self, x: Tensor) -> Tensor:
        # (columns, B) -> (rows, B), in one pass over the numbers of the matrix
        return functional.embedding_bag(
            self.columns,
            x,
            self.offsets,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        )

    def dense(self) -> Tensor:
        """The same matrix with its zeros, ``(rows, columns)``."""
        row_numbers = torch.arange(self.shape[0], device=self.offsets.device)
        index = (row_numbers.repeat_interleave(self.offsets.diff()), self.columns.long())

        empty = self.values.new_zeros(self.shape)
        return empty.index_put(index, self.values.detach(), accumulate=True)


class ReLULayer(nn.Module):
    """``x <- R(W x + b)`` with ``W = W_0 + W_1 V``: W_0 is wiring and V, if any, of low rank.

    Args:
        num_inputs: wires before the layer.
        groups: its units, in the order of the wires after it; they may read the rows of V as wires
            from ``num_inputs`` on.
        scores: rows of V.
    """

    def __init__(self, num_inputs: int, groups: Sequence[Units], scores: Sequence[Units]) -> None:
        super().__init__()
        self.scores = SparseMatrix(scores, num_inputs) if scores else None
        num_scores = self.scores.shape[0] if self.scores is not None else 0
        self.wiring = SparseMatrix(groups, num_inputs + num_scores)
        bias = torch.cat([group.bias.flatten() for group in groups])
        self.bias = nn.Parameter(bias[:, None])  # (n_out, 1)

    @override
    def forward(self, x: Tensor) -> Tensor:
        # (n_in, B) -> (n_out, B)
        if self.scores is not None:
            x = torch.cat([x, self.scores(x)])
        return (self.wiring(x) + self.bias).relu()

    def num_weights(self) -> int:
        """How many numbers of W are not zero."""
        if self.scores is None:
            return len(self.wiring.columns)

        # a unit that reads a row of V has as many weights as the row
        reads_wire = self.wiring.columns < self.scores.shape[1]
        rank = len(self.scores.columns) // self.scores.shape[0]
        return int(torch.where(reads_wire, 1, rank).sum())

    def dense(self) -> tuple[Tensor, Tensor]:
        """W, ``(n_out, n_in)``, and b, ``(n_out,)``."""
        matrix = self.wiring.dense()
        bias = self.bias.detach().squeeze(-1)
        if self.scores is None:
            return matrix, bias

        num_inputs = self.scores.shape[1]
        low_rank = matrix[:, num_inputs:] @ self.scores.dense()
        return matrix[:, :num_inputs] + low_rank, bias


class Circuit:
    """Layers under construction.

    ``circuit[name]`` are the numbers of the wires of that name after the last layer.

    Args:
        inputs: shape of every named group of wires before the first layer, in order.

    >>> circuit = Circuit(bits=(3,))
    >>> circuit.layer(drop="bits", flipped=units(wire(circuit["bits"], -1), bias=1))
    >>> bits = torch.tensor([[0.0], [1.0], [0.0]], dtype=torch.float64)
    >>> circuit.layers[0](bits).flatten().tolist()
    [1.0, 0.0, 1.0]
    """

    def __init__(self, **inputs: tuple[int, ...]) -> None:
        self.layers: list[ReLULayer] = []
        self._wires: dict[str, Tensor] = {}
        self._scores: list[Units] = []  # of the next layer
        self._num_numbered = 0  # wires, and behind them the rows of scores
        self._number(inputs)

    def __getitem__(self, name: str) -> Tensor:
        return self._wires[name]

    def products(self, name: str, vectors: Tensor) -> Tensor:
        """Inner products of named wires ``(D,)`` with vectors ``(*S, D)``.

        Returns:
            Tensor: numbers ``(*S,)`` of wires that the next layer may read.
        """
        self._scores.append(units((self[name].expand(vectors.shape), vectors)))
        return self._next_numbers(vectors.shape[:-1])

    def layer(self, drop: str = "", **new: Units) -> None:
        """Append a layer, which hands all wires on but those that it drops or replaces.

        Args:
            drop: names, with spaces between them, of wires that no later layer reads.
            new: units by name; their wires come last, or in the place of the wires that had the
                name.
        """
        dropped = drop.split()
        groups: dict[str, Units] = {}
        for name, wires in self._wires.items():
            if name not in dropped:
                groups[name] = units(wire(wires))  # no wire is negative, so R(x) = x
        groups |= new

        num_scores = sum(scores.bias.numel() for scores in self._scores)
        num_inputs = self._num_numbered - num_scores
        self.layers.append(ReLULayer(num_inputs, list(groups.values()), self._scores))
        self._number({name: tuple(group.bias.shape) for name, group in groups.items()})

    def _number(self, shapes: Mapping[str, tuple[int, ...]]) -> None:
        """Number the wires after a layer from 0 on."""
        self._wires = {}
        self._scores = []
        self._num_numbered = 0
        for name, shape in shapes.items():
            self._wires[name] = self._next_numbers(shape)

    def _next_numbers(self, shape: tuple[int, ...]) -> Tensor:
        first = self._num_numbered
        self._num_numbered += prod(shape)
        return torch.arange(first, self._num_numbered).reshape(shape)
