"""The activations and gradients of examples as columns of neurons, see ``set_network``.

Legend: R rows, D columns of a table, N neurons of all spaces.
"""

from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from math import pi, prod

import numpy as np
import torch
from torch import Tensor

from learned_opt.optimizers.factors import RowTree
from learned_opt.optimizers.features import TINY
from learned_opt.optimizers.neuron_spaces import Connection, NeuronSpaces, Side
from learned_opt.optimizers.set_network import Groups
from learned_opt.optimizers.sites import Entrywise, Lookup, Site
from learned_opt.symmetry.spec import PermutationSpec

NUM_CODES = 9  # the share of fixed axes, sine and cosine of four frequencies
INPUT, OUTPUT = "input", "output"
FREQUENCIES = (1, 2, 4, 8)  # turns over all neurons, or over all spaces

# what is remembered of the neurons of a side: ``(parameter, side, is_input) -> (D, channels)``
Memory = Callable[[str, Side, bool], Tensor]


@dataclass(frozen=True)
class Table:
    """Values of one side of a site.

    Args:
        values: ``(R, D)``, in units of their root mean square.
        neurons: of the columns, among all N: ``(D,)``, ascending.
        memory: ``(D, channels)``.
    """

    values: Tensor
    neurons: np.ndarray
    memory: Tensor


class Tables:
    """All tables of a step.

    Args:
        spaces: of the network.
        factors: of its parameters.
        memory: what is remembered of neurons.
        num_examples: rows that are read at most, evenly spaced; None for all.
    """

    def __init__(
        self,
        spaces: NeuronSpaces,
        factors: RowTree,
        memory: Memory,
        num_examples: int | None,
    ) -> None:
        self.spaces = spaces
        self.memory = memory
        self.num_examples = num_examples
        # (names of the space, (rows of the batch, mark of their order)) -> tables of a, of g
        self.inputs: dict[tuple, list[Table]] = defaultdict(list)
        self.outputs: dict[tuple, list[Table]] = defaultdict(list)
        self.seen: set[tuple] = set()

        entrywise = []
        for name, connection in _all_connections(spaces):
            site = factors[name].sites[connection.site]
            if isinstance(site, Entrywise):
                entrywise.append((name, connection, site))
            else:
                self._read(name, connection, site)

        # a bias has the gradients of its neurons, which a weight shows already
        present = {names for names, _ in (*self.inputs, *self.outputs)}
        for name, connection, site in entrywise:
            if connection.outputs.names not in present:
                self._read(name, connection, site)

    def groups(self, code: Tensor) -> Groups:
        """The groups: channels are a, g, what is remembered of both, and a code ``(N, 9)``."""
        by_rows: dict[tuple, list[tuple[Tensor, np.ndarray]]] = defaultdict(list)
        for key in dict.fromkeys((*self.inputs, *self.outputs)):
            for a, g in _paired(self.inputs.get(key, []), self.outputs.get(key, [])):
                table = a or g
                assert table is not None
                values = _channels(a, g, code[torch.tensor(table.neurons, device=code.device)])
                by_rows[key[1]].append((values, table.neurons))

        values = []
        columns = []
        counts = np.zeros(self.spaces.num_neurons)
        for parts in by_rows.values():
            values.append(torch.cat([part for part, _ in parts], 1))
            neurons = np.concatenate([numbers for _, numbers in parts])
            columns.append(torch.tensor(neurons, device=code.device))
            np.add.at(counts, neurons, 1)
        num_columns = torch.tensor(counts.clip(1), dtype=code.dtype, device=code.device)
        return Groups(values, columns, num_columns.unsqueeze(1))

    def _read(self, name: str, connection: Connection, site: Site) -> None:
        inputs, outputs = connection.inputs, connection.outputs
        num_rows = site.num_rows * (len(connection.positions) if site.folds else 1)
        # rows whose order is not known are beside no others
        key = (num_rows, 0 if site.order else len(self.seen) + 1)
        chosen = self._chosen(site, num_rows)

        every = torch.arange(site.num_rows, device=chosen.device)
        rows = site.rows(every if site.folds else chosen)
        folded = chosen if site.folds else None
        if rows.activations is not None:
            source = id(getattr(site, "activations", None))
            self._keep(INPUT, name, inputs, _table(rows.activations, inputs, folded), key, source)
        elif isinstance(site, Lookup):  # how often each index was read, one row for the batch
            frequencies = site.mean_activations(1).T[:, slice(*inputs.columns)]
            self._keep(INPUT, name, inputs, frequencies, (1, -1), id(site.indices))
        table = _table(rows.gradients, outputs, folded)
        self._keep(OUTPUT, name, outputs, table, key, id(site.gradients))

    def _keep(
        self, kind: str, name: str, side: Side, values: Tensor, rows: tuple[int, int], source: int
    ) -> None:
        """Add a table, unless its values are there: several weights may read one tensor."""
        mark = (kind, source, side.names, side.columns)
        if mark in self.seen:
            return
        self.seen.add(mark)

        memory = self.memory(name, side, kind == INPUT)
        neurons = self.spaces.numbers(side)
        order = np.argsort(neurons)
        if (np.diff(neurons) < 0).any():
            index = torch.tensor(order, device=values.device)
            values = values.index_select(1, index)
            memory = memory.index_select(0, index)
        scale = torch.rsqrt(values.square().mean() + TINY)
        kept = self.inputs if kind == INPUT else self.outputs
        kept[side.names, rows].append(Table(values * scale, neurons[order], memory))

    def _chosen(self, site: Site, num_rows: int) -> Tensor:
        count = num_rows if self.num_examples is None else min(num_rows, self.num_examples)
        chosen = [row * num_rows // count for row in range(count)]
        if site.order is not None:
            chosen = site.order.located(chosen, num_rows)
        return torch.tensor(chosen, device=site.gradients.device)


def _all_connections(spaces: NeuronSpaces) -> Iterator[tuple[str, Connection]]:
    for name, connections in spaces.connections.items():
        for connection in connections:
            yield name, connection


def _table(values: Tensor, side: Side, chosen: Tensor | None) -> Tensor:
    """``(R, D)`` of ``(G, R, channels)``."""
    part = values[..., slice(*side.columns)]
    if side.by_group:
        return part.transpose(0, 1).flatten(1)
    rows = part.flatten(0, 1)  # groups are more rows
    return rows if chosen is None else rows.index_select(0, chosen)


def _paired(
    inputs: list[Table], outputs: list[Table]
) -> Iterator[tuple[Table | None, Table | None]]:
    """The k-th table of a with the k-th of g, where they are of the same neurons."""
    for number in range(max(len(inputs), len(outputs))):
        a = inputs[number] if number < len(inputs) else None
        g = outputs[number] if number < len(outputs) else None
        if a is None or g is None or np.array_equal(a.neurons, g.neurons):
            yield a, g
        else:
            yield a, None
            yield None, g


def _channels(a: Table | None, g: Table | None, code: Tensor) -> Tensor:
    """``(R, D, channels)``; of what a neuron does not have, zeros."""
    table = a or g
    assert table is not None
    zeros = torch.zeros_like(table.values)
    no_memory = torch.zeros_like(table.memory)
    pair = [zeros if part is None else part.values for part in (a, g)]
    memories = [no_memory if part is None else part.memory for part in (a, g)]

    constant = torch.cat([*memories, code], -1)  # (D, channels), the same for all rows
    constant = constant.expand(len(zeros), *constant.shape)
    return torch.cat([torch.stack(pair, -1), constant], -1)


def neuron_code(spec: PermutationSpec, spaces: NeuronSpaces, like: Tensor) -> Tensor:
    """The code ``(N, 9)``: which space a neuron is of; where axes are fixed, which one it is.

    Args:
        spec: whose fixed names tell neurons apart.
        spaces: of the network.
        like: a tensor of the device and dtype.
    """
    codes = []
    for number, (names, size) in enumerate(spaces.sizes.items()):
        fixed = [name in spec.fixed for name in names]
        lengths = [spaces.lengths[name] for name in names]
        angles = np.full(size, number / len(spaces.sizes))
        if any(fixed):
            index = np.indices(lengths).reshape(len(names), size)
            position = np.zeros(size)
            for axis, is_fixed in enumerate(fixed):
                if is_fixed:
                    position = position * lengths[axis] + index[axis]
            total = prod(length for length, known in zip(lengths, fixed, strict=True) if known)
            angles = position / total
        codes.append(_sines(sum(fixed) / max(len(fixed), 1), angles))
    return torch.tensor(np.concatenate(codes), dtype=like.dtype, device=like.device)


def _sines(share: float, angles: np.ndarray) -> np.ndarray:
    columns = [np.full(len(angles), share)]
    for frequency in FREQUENCIES:
        columns.append(np.sin(2 * pi * frequency * angles))
        columns.append(np.cos(2 * pi * frequency * angles))
    return np.stack(columns, 1)
