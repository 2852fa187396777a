"""GradMetaNet as input of a learned optimizer: a network that reads sets of gradients.

Legend: C channels of a weight, E decays of averages, N neurons of all spaces.
"""

from collections.abc import Sequence
from itertools import permutations
from math import prod

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.optimizers.base import check_at_least_one, check_between_0_and_1
from learned_opt.optimizers.factors import MOMENTS, NUM_MOMENTS, ROWS, RowTree
from learned_opt.optimizers.features import Features, Reading, ema
from learned_opt.optimizers.neuron_moments import relative_moments
from learned_opt.optimizers.neuron_spaces import Connection, NeuronSpaces, Side, neuron_spaces
from learned_opt.optimizers.set_network import NeuronProduct, SetNetwork
from learned_opt.optimizers.set_tables import NUM_CODES, Tables, neuron_code
from learned_opt.optimizers.sites import Entrywise


class GradMetaNet(Features):
    """``num_outputs`` channels of every weight, from the gradients of the examples of a batch.

    Layers on the set of examples, the mean over them, layers on neurons, and a product of the two
    neurons of a weight, see ``set_network``. A neuron has its activation a and its gradient g in
    each example, averages of their mean and root mean square over steps, and a code. Values are in
    units of their root mean square over the space. Equivariant to permutations of hidden neurons
    and invariant to the order of examples; theta is the same for every network. A parameter without
    factors has channels of zero.

    Args:
        width: channels of all layers.
        set_layers: layers on examples and neurons.
        neuron_layers: layers on neurons, behind the pooling.
        num_outputs: C.
        decays: E of them, of the averages.
        num_examples: rows of the batch that are read at most, evenly spaced; None for all. Cost
            and memory grow with them: rows x N x width numbers a layer.

    Raises:
        ValueError: a size or number below 1, or a decay outside of (0, 1).

    Source: Gelberg et al. 2025 (arXiv 2507.01649). Averages of moments in the place of averages of
    past sets (whose examples have no order), means for sums, scaling, sizes and spaces of networks
    other than chains of layers are choices of this project.
    """

    factor_needs = frozenset({ROWS, MOMENTS})
    separable = False

    def __init__(
        self,
        width: int = 16,
        set_layers: int = 2,
        neuron_layers: int = 1,
        num_outputs: int = 14,
        decays: Sequence[float] = (0.9, 0.99, 0.999),
        num_examples: int | None = 16,
    ) -> None:
        check_at_least_one(width=width, set_layers=set_layers, num_outputs=num_outputs)
        if neuron_layers < 0:
            raise ValueError(f"neuron_layers must not be negative, got {neuron_layers}.")
        if num_examples is not None:
            check_at_least_one(num_examples=num_examples)
        for decay in decays:
            check_between_0_and_1(decays=decay)

        super().__init__(num_outputs)
        self.decays = tuple(decays)
        self.num_examples = num_examples
        num_inputs = 2 + NUM_MOMENTS * len(self.decays) + NUM_CODES
        self.network = SetNetwork(num_inputs, width, set_layers, neuron_layers)
        self.product = NeuronProduct(width, num_outputs)

    @override
    def init_state(self, params: Tree) -> Tree:
        # moments of neurons, by the axes of the parameters that they are on: O(N) numbers
        axes = {}
        for name, param in params.items():
            sizes = param.shape or (1,)
            shape = (len(self.decays), NUM_MOMENTS)
            axes[name] = {str(k): param.new_zeros(*shape, n) for k, n in enumerate(sizes)}
        return {"axes": axes}

    @override
    def forward(self, reading: Reading, state: Tree) -> tuple[Tree, Tree]:
        factors: RowTree = reading.factors  # with their rows
        assert reading.spec is not None  # optimizers hand it on
        averages = self._averages(factors, state["axes"])

        channels = {}
        for name, param in reading.params.items():
            channels[name] = param.new_zeros(*param.shape, self.num_channels)
        spaces = neuron_spaces(reading.spec, reading.params, factors)
        if spaces.connections:
            neurons = self._neurons(reading, spaces, averages)
            for name in spaces.connections:
                channels[name] = self._of_param(name, factors, spaces, neurons)
        return channels, {"axes": averages}

    def _averages(self, factors: RowTree, axes: Tree) -> Tree:
        averages = {}
        for name, of_param in axes.items():
            averages[name] = of_param
            if name not in factors:
                continue
            moments = factors[name].moments()  # (4, *shape)
            decays = torch.tensor(self.decays, dtype=moments.dtype, device=moments.device)
            averages[name] = {}
            for k, average in of_param.items():
                means = moments.movedim(1 + int(k), 1) if moments.ndim > 1 else moments.unsqueeze(1)
                means = means.flatten(2).mean(2) if means.ndim > 2 else means  # (4, n)
                averages[name][k] = ema(average, means, decays.reshape(-1, 1, 1))
        return averages

    def _neurons(self, reading: Reading, spaces: NeuronSpaces, averages: Tree) -> Tensor:
        """``(N, width)``."""
        like = next(iter(reading.params.values()))
        decays = torch.tensor(self.decays, dtype=like.dtype, device=like.device)
        unbiased = 1 / (1 - decays**reading.step)  # (E,)

        def memory(name: str, side: Side, is_input: bool) -> Tensor:
            average = _at_neurons(side, reading.params[name].shape, averages[name])  # (E, 4, D)
            relative = relative_moments((average * unbiased.reshape(-1, 1, 1)).movedim(1, 0))
            part = relative[:2] if is_input else relative[2:]
            return part.flatten(0, 1).T  # (D, 2 E)

        tables = Tables(spaces, reading.factors, memory, self.num_examples)
        assert reading.spec is not None
        return self.network(tables.groups(neuron_code(reading.spec, spaces, like)))

    def _of_param(
        self, name: str, factors: RowTree, spaces: NeuronSpaces, neurons: Tensor
    ) -> Tensor:
        """Channels ``(*shape, C)`` of one parameter: the mean over its uses."""
        shape = factors[name].sites[0].route.param_shape
        total = neurons.new_zeros(prod(shape), self.num_channels)
        counts = np.zeros(prod(shape))
        seen = set()
        for connection in spaces.connections[name]:
            site = factors[name].sites[connection.site]
            mark = (site.route.positions, connection.inputs.columns, connection.outputs.columns)
            if mark in seen:  # read alike at another time step
                continue
            seen.add(mark)

            values, positions = self._of_connection(
                connection, isinstance(site, Entrywise), spaces, neurons
            )
            np.add.at(counts, positions, 1)
            values = values.to(total.dtype)
            if np.array_equal(positions, np.arange(len(total))):
                total = total + values
            else:
                total = total.index_add(0, torch.tensor(positions, device=total.device), values)

        if counts.max(initial=1) > 1:
            num_uses = torch.tensor(counts.clip(1), dtype=total.dtype, device=total.device)
            total = total / num_uses.unsqueeze(1)
        return total.reshape(*shape, -1)

    def _of_connection(
        self, connection: Connection, is_entrywise: bool, spaces: NeuronSpaces, neurons: Tensor
    ) -> tuple[Tensor, np.ndarray]:
        """Channels ``(entries, C)``, and the positions of the entries in the flat parameter."""
        sides = []
        for side, dim in ((connection.inputs, 2), (connection.outputs, 1)):
            numbers = torch.tensor(spaces.numbers(side), device=neurons.device)
            num_groups = len(connection.positions) if side.by_group else 1
            table = neurons.index_select(0, numbers).unflatten(0, (num_groups, -1))
            sides.append(table.unsqueeze(dim))  # (G, I, 1, width) and (G, 1, O, width)
        positions = connection.positions if connection.inputs.by_group else connection.positions[:1]

        # entries in the order of the parameter, where one order of the axes does it
        for order in permutations(range(3)):
            flat = positions.transpose(order).ravel()
            if (np.diff(flat) > 0).all():
                sides = [side.permute(*order, 3) for side in sides]
                break
        else:
            flat = positions.ravel()

        if is_entrywise:
            values = self.product.of_entries(sides[1])
        else:
            values = self.product.of_weights(*sides)
        return values.reshape(len(flat), -1), flat


def _at_neurons(side: Side, shape: Sequence[int], averages: Tree) -> Tensor:
    """What is remembered of neurons ``(E, 4, D)``: the mean over the axes that they are on."""
    index = np.unravel_index(side.entries, tuple(shape) or (1,))
    varying = [k for k, coordinate in enumerate(index) if np.ptp(coordinate) > 0] or [0]

    parts = []
    for k in varying:
        average = averages[str(k)]
        numbers = torch.tensor(index[k], device=average.device)
        parts.append(average.index_select(2, numbers))
    return torch.stack(parts).mean(0)
