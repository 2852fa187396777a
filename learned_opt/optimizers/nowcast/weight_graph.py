"""A weight space as a graph: neurons are nodes, weights are edges.

Legend: N nodes, E edges, P kernel positions, S snapshots.
"""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.core.tree import Tree
from learned_opt.optimizers.nowcast.roles import SELF_LOOP, Roles
from learned_opt.symmetry.spec import PermutationSpec


class Part(NamedTuple):
    """The edges of one tensor of the spec.

    Args:
        shape: one length for each axis of its parameter.
        edges: which of all.
        positions: P of this tensor.
    """

    shape: tuple[int, ...]
    edges: slice
    positions: int


class WeightGraph:
    """Built from a spec: axes of one name are the same nodes, whatever tensors they are of.

    An edge is an entry between the first two axes of a tensor, from input to output; further axes
    are positions, which one edge holds all of. A merged axis has a node for each of its entries. A
    vector has one node more, where its edges begin. Every node has an edge to itself.

    Args:
        spec: of the parameters.
        shapes: of the parameters, by name.
        roles: of the parameters, see ``roles_of``.
        input_first: parameters whose first axis is the input.

    Attributes:
        num_nodes: N.
        sources: node that each edge begins at, ``(E,)``.
        targets: node that it ends at, ``(E,)``.
        types: its role, ``(E,)``.
        positions: the largest P.

    Source: Knyazev et al. 2025 (arXiv 2409.04434), whose graphs of chains these are.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        shapes: Mapping[str, Sequence[int]],
        roles: Mapping[str, Roles],
        input_first: Collection[str] = (),
    ) -> None:
        self.spec = spec
        self.num_nodes = 0
        self.input_first = set(input_first)
        self.parts: dict[str, Part] = {}
        self._nodes: dict[tuple[str, ...], Tensor] = {}
        self._lengths: dict[str, tuple[int, ...]] = {}
        self._ends: list[tuple[Tensor, Tensor, Tensor]] = []  # sources, targets, types
        self._num_edges = 0

        on_meta = {name: torch.empty(tuple(shape), device="meta") for name, shape in shapes.items()}
        self._names = _names_of_tensors(spec)
        for tensor, viewed in spec.view(on_meta).items():
            name = self._names[tensor]
            self._add_tensor(tensor, tuple(viewed.shape), roles[name], name in self.input_first)

        loops = torch.arange(self.num_nodes)
        self._add_edges(loops, loops, torch.full_like(loops, SELF_LOOP))
        sources, targets, types = zip(*self._ends, strict=True)
        self.sources = torch.cat(sources)
        self.targets = torch.cat(targets)
        self.types = torch.cat(types)
        self.positions = max((part.positions for part in self.parts.values()), default=1)

    def to(self, device: torch.device | str) -> "WeightGraph":
        """Move the ends of the edges to a device; returns this graph."""
        self.sources = self.sources.to(device)
        self.targets = self.targets.to(device)
        self.types = self.types.to(device)
        return self

    def attributes(self, snapshots: Tree) -> Tensor:
        """What the edges hold, ``(E, P S)``, position by position; 0 where a tensor has fewer.

        Args:
            snapshots: parameters ``(S, *shape)``.
        """
        last = {name: leaf.movedim(0, -1) for name, leaf in snapshots.items()}
        viewed = self.spec.view(last)  # (*axes, S)
        num_snapshots = len(next(iter(snapshots.values())))
        like = next(iter(snapshots.values()))
        values = like.new_zeros(len(self.sources), self.positions * num_snapshots)
        values[self._num_edges - self.num_nodes :, :num_snapshots] = 2.0  # loops
        for tensor, part in self.parts.items():
            by_axis = viewed[tensor].reshape(*part.shape, num_snapshots)
            rows = self._turned(tensor, by_axis).reshape(-1, part.positions * num_snapshots)
            values[part.edges, : rows.shape[1]] = rows
        return values

    def parameters(self, values: Tensor) -> Tree:
        """Parameters from one number for each position of each edge, ``(E, P)``."""
        viewed = {}
        for tensor, part in self.parts.items():
            rows = values[part.edges, : part.positions]
            turned = self._turned(tensor, torch.empty(part.shape, device="meta")).shape
            by_axis = self._turned(tensor, rows.reshape(turned))
            viewed[tensor] = by_axis.reshape(self._lengths[tensor])
        return self.spec.unview(viewed)

    def _turned(self, tensor: str, by_axis: Tensor) -> Tensor:
        """With the output axis first; its own inverse."""
        if self._names[tensor] in self.input_first:
            return by_axis.transpose(0, 1)
        return by_axis

    def _add_tensor(
        self, tensor: str, lengths: tuple[int, ...], roles: Roles, input_first: bool
    ) -> None:
        names = self.spec.axes[tensor]
        slots = self.spec.slots(tensor)
        merged: list[tuple[str, ...]] = []
        shape: list[int] = []
        for slot in dict.fromkeys(slots):
            axes = [axis for axis, other in enumerate(slots) if other == slot]
            # a channel of one position, flattened, is that channel
            longer = [axis for axis in axes if lengths[axis] > 1] or axes[:1]
            merged.append(tuple(names[axis] for axis in longer))
            shape.append(prod(lengths[axis] for axis in axes))

        ends = [self._nodes_of(key, size) for key, size in zip(merged[:2], shape[:2], strict=True)]
        while len(ends) < 2:
            ends.append(self._new_nodes(1))
        targets, sources = reversed(ends) if input_first else ends
        num_rows, num_columns = len(targets), len(sources)

        parts = torch.arange(num_rows) * len(roles) // max(num_rows, 1)
        types = torch.tensor(roles)[parts].repeat_interleave(num_columns)
        start = self._num_edges
        self._add_edges(sources.repeat(num_rows), targets.repeat_interleave(num_columns), types)
        self.parts[tensor] = Part(tuple(shape), slice(start, self._num_edges), prod(shape[2:]))
        self._lengths[tensor] = lengths

    def _nodes_of(self, key: tuple[str, ...], size: int) -> Tensor:
        if key not in self._nodes:
            self._nodes[key] = self._new_nodes(size)
        return self._nodes[key]

    def _new_nodes(self, count: int) -> Tensor:
        nodes = torch.arange(self.num_nodes, self.num_nodes + count)
        self.num_nodes += count
        return nodes

    def _add_edges(self, sources: Tensor, targets: Tensor, types: Tensor) -> None:
        self._ends.append((sources, targets, types))
        self._num_edges += len(sources)


def _names_of_tensors(spec: PermutationSpec) -> dict[str, str]:
    """The parameter that each tensor of a spec is, or is a piece of."""
    names = {}
    for tensor in spec.axes:
        name = tensor
        while name in spec.layout.wholes:
            name = spec.layout.wholes[name]
        names[tensor] = name
    return names
