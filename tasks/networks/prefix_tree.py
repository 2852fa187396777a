"""An MLP of prefix-tree layers, each of which is gated by the hidden units before it."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn
from typing_extensions import override

from tasks.networks.base import Network, check_each_size, check_sizes
from tasks.networks.prefix_tree_linear import PrefixTreeLinear


class PrefixTreeMLP(Network):
    """Linear layer, then prefix-tree layers gated by the hidden units before them, ReLU between.

    Args:
        input_shape: shape of one example.
        num_outputs: outputs, e.g. classes.
        hidden_sizes: widths of the hidden layers, at least one.
        depth: gating bits of each prefix-tree layer.
        rank: rank of its nodes, None for full matrices.
        gate: ``linear`` or ``sign``.
        mode: ``straight_through`` or ``soft``; the inner loop draws no noise inside of a step.

    Raises:
        ValueError: a value is out of its range.

    Source: Cho & Bengio 2014 (arXiv 1406.7362) for the layers; the network around them is ours.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        hidden_sizes: Sequence[int] = (32,),
        depth: int = 3,
        rank: int | None = 2,
        gate: str = "linear",
        mode: str = "straight_through",
    ) -> None:
        super().__init__()
        check_sizes(num_outputs=num_outputs)
        check_each_size("hidden_sizes", hidden_sizes)

        if not hidden_sizes:
            raise ValueError(
                "hidden_sizes must hold at least one width, "
                "whose units gate the next layer, got none."
            )
        if mode == "noisy":
            raise ValueError(
                "mode must be straight_through or soft in an inner network, got 'noisy'."
            )

        self.embed = nn.Linear(prod(input_shape), hidden_sizes[0])
        self.layers = nn.ModuleList()
        for inputs, outputs in pairwise([*hidden_sizes, num_outputs]):
            self.layers.append(PrefixTreeLinear(inputs, outputs, depth, rank, gate, mode))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = self.embed(inputs.flatten(1))  # (B, width)
        for layer in self.layers:
            hidden = layer(hidden.relu(), source=hidden)
        return hidden
