"""Multilayer perceptron."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from tasks.base import PermutationAxes
from tasks.networks.base import Network, check_sizes


class MLP(Network):
    """Flatten, then linear layers with ReLU between them.

    Args:
        input_shape: shape of one example.
        num_outputs: outputs, e.g. classes.
        hidden_sizes: widths of the hidden layers.
    """

    def __init__(self, input_shape: Sequence[int], num_outputs: int, hidden_sizes: Sequence[int] = (32,)) -> None:
        super().__init__()
        check_sizes(num_outputs=num_outputs, **{f"hidden_sizes[{i}]": size for i, size in enumerate(hidden_sizes)})
        widths = [prod(input_shape), *hidden_sizes, num_outputs]
        self.layers = nn.ModuleList(nn.Linear(*pair) for pair in pairwise(widths))

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, *input_shape) -> (B, num_outputs)``."""
        hidden = inputs.flatten(1)
        for layer in self.layers[:-1]:
            hidden = layer(hidden).relu()
        return self.layers[-1](hidden)

    def permutation_axes(self) -> PermutationAxes:
        """Hidden units of a layer permute together; inputs and outputs are fixed."""
        names = ["input", *(f"hidden{i}" for i in range(len(self.layers) - 1)), "output"]
        axes: dict[str, tuple[str, ...]] = {}
        for i in range(len(self.layers)):
            axes[f"layers.{i}.weight"] = (names[i + 1], names[i])
            axes[f"layers.{i}.bias"] = (names[i + 1],)
        return axes, frozenset({"input", "output"})
