"""Equivariant layers on sets of examples with values at neurons, and their product to weights.

Legend: R rows (examples x positions), D columns of a group, N neurons of all spaces, C channels. A
*group* ``(R, D, C)`` holds values of columns with equally many rows; row r is one example in all of
it, a column belongs to a neuron, of which there may be several columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Groups:
    """Values of examples at neurons.

    Args:
        values: of each group, ``(R, D, C)``.
        columns: the neuron of each column, ``(D,)``, of each group.
        counts: how many columns each neuron has, at least 1: ``(N, 1)``.
    """

    values: Sequence[Tensor]
    columns: Sequence[Tensor]
    counts: Tensor

    def pooled(self) -> Tensor:
        """The mean over rows and columns of each neuron: ``(N, C)``."""
        total = self.values[0].new_zeros(len(self.counts), self.values[0].shape[-1])
        for values, columns in zip(self.values, self.columns, strict=True):
            total = total.index_add(0, columns, values.mean(0).to(total.dtype))
        return total / self.counts


class SetLayer(nn.Module):
    """``y_ij = M1 x_ij + M2 mean_i x_ij + M3 mean_j x_ij + M4 mean_ij x_ij + bias``.

    i are examples, j neurons; the third mean is over the columns of the group.

    Args:
        in_channels: of the input.
        out_channels: of the output.

    Source: Gelberg et al. 2025 (arXiv 2507.01649), rebuilt from the wording; Hartford et al. 2018
    (arXiv 1803.02879). Means in the place of sums are a choice of this project.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = _initial(4, in_channels, out_channels)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, groups: Groups) -> Groups:
        """The next values; columns stay."""
        each, of_neuron, of_example, of_all = self.weight
        pooled = groups.pooled()
        shared = pooled @ of_neuron + pooled.mean(0) @ of_all + self.bias  # (N, C)

        values = []
        for group, columns in zip(groups.values, groups.columns, strict=True):
            by_example = (group.mean(1) @ of_example).unsqueeze(1)  # (R, 1, C)
            values.append(group @ each + by_example + shared.index_select(0, columns))
        return Groups(values, groups.columns, groups.counts)


class NeuronLayer(nn.Module):
    """``y_j = M1 x_j + M2 mean_j x_j + bias``: a Deep Set over neurons ``(N, C)``.

    Args:
        in_channels: of the input.
        out_channels: of the output.

    Source: Zaheer et al. 2017 (arXiv 1703.06114).
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.weight = _initial(2, in_channels, out_channels)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, neurons: Tensor) -> Tensor:
        """``(N, C)`` of ``(N, C)``."""
        each, of_all = self.weight
        return neurons @ each + neurons.mean(0) @ of_all + self.bias


class NeuronProduct(nn.Module):
    """Channels of a weight from its two neurons, and of a bias from its one.

    Args:
        channels: of a neuron, and of the hidden layer.
        out_channels: of a weight.
    """

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__()
        self.inputs = nn.Linear(channels, channels, bias=False)
        self.outputs = nn.Linear(channels, channels)
        self.weight = nn.Linear(channels, out_channels)
        self.entry = nn.Sequential(
            nn.Linear(channels, channels), nn.ReLU(), nn.Linear(channels, out_channels)
        )

    def of_weights(self, inputs: Tensor, outputs: Tensor) -> Tensor:
        """``(..., C_out)`` of two tensors of neurons ``(..., C)`` that broadcast."""
        # the first layer of a pair is a sum of two parts, so that no pair is ever stored
        return self.weight(torch.relu(self.inputs(inputs) + self.outputs(outputs)))

    def of_entries(self, neurons: Tensor) -> Tensor:
        """``(..., C_out)`` of ``(..., C)``."""
        return self.entry(neurons)


class SetNetwork(nn.Module):
    """Sets, pooling, neurons: from groups to one vector for each neuron.

    Args:
        in_channels: of the groups.
        width: of all layers.
        set_layers: on groups, at least 1.
        neuron_layers: behind the pooling.
    """

    def __init__(self, in_channels: int, width: int, set_layers: int, neuron_layers: int) -> None:
        super().__init__()
        widths = [in_channels, *[width] * set_layers]
        self.sets = nn.ModuleList(SetLayer(*pair) for pair in pairwise(widths))
        # the first one reads the means over examples
        self.neurons = nn.ModuleList(NeuronLayer(width, width) for _ in range(1 + neuron_layers))

    def forward(self, groups: Groups) -> Tensor:
        """``(N, width)``."""
        for layer in self.sets:
            groups = layer(groups)
            active = [values.relu() for values in groups.values]
            groups = Groups(active, groups.columns, groups.counts)

        neurons = self.neurons[0](groups.pooled())
        for layer in self.neurons[1:]:
            neurons = layer(neurons.relu())
        return neurons


def _initial(num_terms: int, in_channels: int, out_channels: int) -> nn.Parameter:
    std = (num_terms * in_channels) ** -0.5
    return nn.Parameter(std * torch.randn(num_terms, in_channels, out_channels))
