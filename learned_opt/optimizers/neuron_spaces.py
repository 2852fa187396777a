"""Which neurons the factors of a network are of, and which weights connect them.

A *space* is what a side of a weight runs over: the axes of its inputs, or of its outputs, by their
permutation names. Weights whose sides have the same names share the space: a residual stream is one
space, the tokens of a vocabulary another.

Legend: N neurons of all spaces, numbered one space after the other; G groups, I inputs, O outputs
of a site.
"""

from itertools import pairwise
from math import prod
from typing import NamedTuple

import numpy as np
import torch
from torch.utils._python_dispatch import _disable_current_modes

from learned_opt.core.tree import Tree
from learned_opt.optimizers.factors import RowTree
from learned_opt.symmetry.spec import PermutationSpec

Names = tuple[str, ...]


class Side(NamedTuple):
    """One side of a site, its inputs or its outputs, or a part of it with names of its own.

    Args:
        names: permutation names of the axes that it runs over.
        neurons: number of each of its neurons within the space, by group first where groups have
            neurons of their own.
        entries: an entry of the flat parameter for each of them.
        columns: (start, stop) of the part.
        by_group: whether each group has neurons of its own; else groups are more rows.
    """

    names: Names
    neurons: np.ndarray
    entries: np.ndarray
    columns: tuple[int, int]
    by_group: bool


class Connection(NamedTuple):
    """A use of a parameter, or a part of it, between two sides.

    Args:
        site: number of the site, among those of the parameter.
        positions: in the flat parameter: ``(G, I, O)``.
        inputs: the side of a.
        outputs: the side of g.
    """

    site: int
    positions: np.ndarray
    inputs: Side
    outputs: Side


class NeuronSpaces(NamedTuple):
    """The spaces of a network.

    Args:
        starts: number of the first neuron of each space.
        sizes: neurons of each space.
        lengths: of the axes of each name.
        connections: by parameter; one whose weights have no two sides is not in it.
    """

    starts: dict[Names, int]
    sizes: dict[Names, int]
    lengths: dict[str, int]
    connections: dict[str, tuple[Connection, ...]]

    @property
    def num_neurons(self) -> int:
        """N."""
        return sum(self.sizes.values())

    def numbers(self, side: Side) -> np.ndarray:
        """The neurons of a side, among all N."""
        return self.starts[side.names] + side.neurons


_known: dict[object, NeuronSpaces] = {}


def neuron_spaces(spec: PermutationSpec, params: Tree, factors: RowTree) -> NeuronSpaces:
    """The spaces of a network; made once for each spec and set of sites.

    Args:
        spec: of its parameters.
        params: its parameters, of which shapes matter.
        factors: of its parameters.
    """
    shapes = tuple((name, tuple(param.shape)) for name, param in params.items())
    sites = []
    for name, of_param in factors.items():
        sites.extend((name, type(site), site.route.positions) for site in of_param.sites)

    key = (spec, shapes, tuple(sites))
    if key not in _known:
        with _disable_current_modes():  # numbers alone: no part of a trace
            _known[key] = _make(spec, dict(shapes), factors)
    return _known[key]


def _make(
    spec: PermutationSpec, shapes: dict[str, tuple[int, ...]], factors: RowTree
) -> NeuronSpaces:
    entries = _Entries(spec, shapes)
    connections = {}
    for name, of_param in factors.items():
        if not all(site.lists_rows for site in of_param.sites):
            continue
        parts: list[Connection | None] = []
        for number, site in enumerate(of_param.sites):
            parts += _connections(number, site.sides(), entries.of(name))
        complete = [part for part in parts if part is not None]
        if len(complete) == len(parts):
            connections[name] = tuple(complete)

    starts: dict[Names, int] = {}
    sizes: dict[Names, int] = {}
    for of_param in connections.values():
        for connection in of_param:
            for side in (connection.inputs, connection.outputs):
                if side.names not in sizes:
                    starts[side.names] = sum(sizes.values())
                    sizes[side.names] = prod(entries.lengths[name] for name in side.names)
    return NeuronSpaces(starts, sizes, entries.lengths, connections)


class _Located(NamedTuple):
    """Where the entries of a flat parameter are: the tensor of the spec, and the index there."""

    tensor: np.ndarray  # (numel,)
    indices: np.ndarray  # (axes, numel), -1 for axes that a tensor does not have
    names: list[Names]  # of the axes of each tensor
    lengths: dict[str, int]


class _Entries:
    """The entries of all parameters, as a spec sees them."""

    def __init__(self, spec: PermutationSpec, shapes: dict[str, tuple[int, ...]]) -> None:
        self.offsets = {}
        self.sizes = {}
        numbered = {}
        total = 0
        for name, shape in shapes.items():
            size = prod(shape)
            self.offsets[name] = total
            self.sizes[name] = size
            numbered[name] = torch.arange(total, total + size).reshape(shape)
            total += size

        self.lengths = spec.sizes(numbered)
        self.names = list(spec.axes.values())
        num_axes = max((len(names) for names in self.names), default=0)
        self.tensor = np.full(total, -1)
        self.index = np.full((num_axes, total), -1)
        viewed = spec.view(numbered)
        for number, (name, axes) in enumerate(spec.axes.items()):
            positions = viewed[name].numpy()
            self.tensor[positions.ravel()] = number
            indices = np.indices(positions.shape).reshape(len(axes), -1)
            self.index[: len(axes), positions.ravel()] = indices

    def of(self, name: str) -> _Located:
        """Those of one parameter."""
        part = slice(self.offsets[name], self.offsets[name] + self.sizes[name])
        return _Located(self.tensor[part], self.index[:, part], self.names, self.lengths)


def _connections(site: int, positions: np.ndarray, located: _Located) -> list[Connection | None]:
    """The parts of a site; None where a part has no two sides.

    A site has several parts where its weight is cut in pieces along its inputs or its outputs.
    """
    tensor = located.tensor[positions]  # (G, I, O)
    inputs = _runs(tensor[0, :, 0]) if tensor.size else []
    outputs = _runs(tensor[0, 0, :]) if tensor.size else []

    parts: list[Connection | None] = []
    for rows in inputs:
        for columns in outputs:
            part = positions[:, slice(*rows), slice(*columns)]
            parts.append(_connection(site, part, rows, columns, located))
    return parts


def _runs(values: np.ndarray) -> list[tuple[int, int]]:
    """(start, stop) of the runs of equal values."""
    edges = np.flatnonzero(np.diff(values)) + 1
    bounds = [0, *edges.tolist(), len(values)]
    return list(pairwise(bounds))


def _connection(
    site: int,
    positions: np.ndarray,
    rows: tuple[int, int],
    columns: tuple[int, int],
    located: _Located,
) -> Connection | None:
    tensors = located.tensor[positions]
    if (tensors != tensors.flat[0]).any():
        return None

    index = located.indices[:, positions]  # (axes, G, I, O)
    names = located.names[tensors.flat[0]]
    axes_of = []
    for dim in (1, 2, 3):
        varies = (index != index.take([0], dim)).reshape(len(index), -1).any(1)
        axes_of.append({axis for axis in range(len(names)) if varies[axis]})
    by_group, by_input, by_output = axes_of
    if by_input & by_output or by_group & (by_input | by_output):
        return None

    sides = []
    for axes, dim, span in ((by_input, 2, rows), (by_output, 1, columns)):
        table = positions.take(0, dim)  # (G, I) or (G, O)
        table = table if by_group else table[:1]
        side = _side(sorted(axes | by_group), table.ravel(), names, located, span, bool(by_group))
        if len(np.unique(side.neurons)) != len(side.neurons):
            return None
        sides.append(side)
    return Connection(site, positions, *sides)


def _side(
    axes: list[int],
    entries: np.ndarray,
    names: Names,
    located: _Located,
    span: tuple[int, int],
    by_group: bool,
) -> Side:
    side_names = tuple(names[axis] for axis in axes)
    neurons = np.zeros(len(entries), dtype=np.int64)
    for axis in axes:
        neurons = neurons * located.lengths[names[axis]] + located.indices[axis, entries]
    return Side(side_names, neurons, entries, span, by_group)
