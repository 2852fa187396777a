"""Layers of ReLU units whose matrices are wiring plus low rank: O(n log n) numbers where dense ones have O(n^2).

Wires are the outputs of a layer. They are numbered, and tensors of numbers say which of them a unit reads.

Legend: B batch, S shape of a group of units (any axes), D wires that one unit reads.
"""

from collections.abc import Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

Term = tuple[Tensor, Tensor]  # wires (*S, D) and weights that broadcast to them


class Units(NamedTuple):
    """A group of units ``R(sum_d weights[d] x[wires[d]] + bias)``: wires and weights ``(*S, D)``, bias ``(*S,)``."""

    wires: Tensor
    weights: Tensor
    bias: Tensor


def units(*terms: Term, bias: Tensor | float = 0.0) -> Units:
    """Units that read the wires of all terms, whose shapes broadcast."""
    offset = torch.as_tensor(bias, dtype=torch.float64)
    shape = torch.broadcast_shapes(*(wires.shape[:-1] for wires, _ in terms), offset.shape)
    wires = torch.cat([wires.expand(*shape, -1) for wires, _ in terms], -1)
    weights = torch.cat([weights.expand(*shape, wires.shape[-1]) for wires, weights in terms], -1)
    return Units(wires, weights, offset.expand(shape))


def wire(wires: Tensor, weight: float = 1.0) -> Term:
    """One wire ``(*S,)`` for each unit."""
    return total(wires[..., None], weight)


def total(wires: Tensor, weight: float = 1.0) -> Term:
    """All wires along the last axis of ``(*S, D)``, with the same weight."""
    return wires, torch.tensor([weight], dtype=torch.float64)


def rows(table: Sequence[dict[int, float]]) -> Term:
    """Wire -> weight for each of a few units; rows are filled up with weights of zero."""
    shape = len(table), max(map(len, table))
    wires, weights = torch.zeros(shape, dtype=torch.long), torch.zeros(shape, dtype=torch.float64)
    for i, row in enumerate(table):
        wires[i, : len(row)] = torch.tensor(list(row))
        weights[i, : len(row)] = torch.tensor(list(row.values()), dtype=torch.float64)
    return wires, weights


class SparseMatrix(nn.Module):
    """Rows of a matrix that hold few numbers each.

    Args:
        groups: units, without their biases; what has no weight is left out.
        num_columns: wires to read from.
    """

    columns: Tensor
    offsets: Tensor

    def __init__(self, groups: Sequence[Units], num_columns: int) -> None:
        super().__init__()
        used = [group.weights != 0 for group in groups]
        pairs = list(zip(groups, used, strict=True))
        counts = torch.cat([mask.sum(-1).flatten() for mask in used])
        self.shape = len(counts), num_columns
        self.register_buffer(
            "columns", torch.cat([group.wires[mask] for group, mask in pairs]).int()
        )
        self.register_buffer("offsets", torch.cat([counts.new_zeros(1), counts.cumsum(0)]).int())
        self.values = nn.Parameter(torch.cat([group.weights[mask] for group, mask in pairs]))

    def forward(self, x: Tensor) -> Tensor:
        """``(columns, B) -> (rows, B)``, in one pass over the numbers of the matrix."""
        return functional.embedding_bag(
            self.columns,
            x,
            self.offsets,
            mode="sum",
            per_sample_weights=self.values,
            include_last_offset=True,
        )

    def dense(self) -> Tensor:
        """``(rows, columns)``."""
        index = torch.arange(self.shape[0], device=self.offsets.device).repeat_interleave(
            self.offsets.diff()
        )
        empty = self.values.new_zeros(self.shape)
        return empty.index_put((index, self.columns.long()), self.values.detach(), accumulate=True)


class ReLULayer(nn.Module):
    """``x <- R(W x + b)`` with ``W = W_0 + W_1 V``: W_0 is wiring and V, where there is one, of low rank.

    Args:
        num_inputs: wires before the layer.
        groups: its units, in the order of the wires after it; they may read the rows of V as wires from
            ``num_inputs`` on.
        scores: rows of V.
    """

    def __init__(self, num_inputs: int, groups: Sequence[Units], scores: Sequence[Units]) -> None:
        super().__init__()
        self.scores = SparseMatrix(scores, num_inputs) if scores else None
        read = num_inputs + (self.scores.shape[0] if self.scores is not None else 0)
        self.wiring = SparseMatrix(groups, read)
        self.bias = nn.Parameter(torch.cat([group.bias.flatten() for group in groups])[:, None])

    def forward(self, x: Tensor) -> Tensor:
        """``(n_in, B) -> (n_out, B)``."""
        if self.scores is not None:
            x = torch.cat([x, self.scores(x)])
        return (self.wiring(x) + self.bias).relu()

    def num_weights(self) -> int:
        """Numbers of W that are not zero."""
        if self.scores is None:
            return len(self.wiring.columns)
        own = self.wiring.columns < self.scores.shape[1]
        rank = len(self.scores.columns) // self.scores.shape[0]
        return int(torch.where(own, 1, rank).sum())

    def dense(self) -> tuple[Tensor, Tensor]:
        """W, ``(n_out, n_in)``, and b, ``(n_out,)``."""
        matrix, bias = self.wiring.dense(), self.bias.detach().squeeze(-1)
        if self.scores is None:
            return matrix, bias
        num_inputs = self.scores.shape[1]
        return matrix[:, :num_inputs] + matrix[:, num_inputs:] @ self.scores.dense(), bias


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

    def products(self, name: str, vectors: Tensor) -> Tensor:
        """Inner products of named wires ``(D,)`` with ``(*S, D)`` vectors, as wires ``(*S,)`` for the next layer."""
        self._scores.append(units((self[name].expand(vectors.shape), vectors)))
        first, self._total = self._total, self._total + prod(vectors.shape[:-1])
        return torch.arange(first, self._total).reshape(vectors.shape[:-1])

    def layer(self, drop: str = "", **new: Units) -> None:
        """Append a layer, which hands all wires on but those that it drops or replaces.

        Args:
            drop: names, with spaces between them, of wires that no later layer reads.
            new: units by name; their wires come last, or in the place of the wires that had the name.
        """
        kept = [name for name in self._wires if name not in drop.split()]
        groups = {
            name: units(wire(self[name])) for name in kept
        } | new  # no wire is negative, so R(x) = x
        num_inputs = self._total - sum(scores.bias.numel() for scores in self._scores)
        self.layers.append(ReLULayer(num_inputs, list(groups.values()), self._scores))
        self._number({name: tuple(group.bias.shape) for name, group in groups.items()})

    def _number(self, shapes: dict[str, tuple[int, ...]]) -> None:
        self._wires, self._scores, self._total = {}, [], 0
        for name, shape in shapes.items():
            self._wires[name] = torch.arange(self._total, self._total + prod(shape)).reshape(shape)
            self._total += prod(shape)
