"""Multilayer perceptron."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn

from tasks.base import PermutationAxes
from tasks.networks.base import Network, check_sizes


class MLP(Network):
    """Flatten, then hidden layers with ReLU after each, then one linear layer.

    Args:
        input_shape: shape of one example.
        num_outputs: outputs, e.g. classes.
        hidden_sizes: widths of the hidden layers.
        layer: constructor ``(inputs, outputs)`` of a hidden layer.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        hidden_sizes: Sequence[int] = (32,),
        layer: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        check_sizes(
            num_outputs=num_outputs,
            **{f"hidden_sizes[{i}]": size for i, size in enumerate(hidden_sizes)},
        )
        widths = [prod(input_shape), *hidden_sizes]
        self.layers = nn.ModuleList(layer(*pair) for pair in pairwise(widths))
        self.layers.append(nn.Linear(widths[-1], num_outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, *input_shape) -> (B, num_outputs)``."""
        hidden = inputs.flatten(1)
        for layer in self.layers[:-1]:
            hidden = layer(hidden).relu()
        return self.layers[-1](hidden)

    def permutation_axes(self) -> PermutationAxes | None:
        """Hidden units of a layer permute together; inputs and outputs are fixed. Inferred for layers not linear."""
        if not all(isinstance(layer, nn.Linear) for layer in self.layers):
            return None
        names = ["input", *(f"hidden{i}" for i in range(len(self.layers) - 1)), "output"]
        axes: dict[str, tuple[str, ...]] = {}
        for i in range(len(self.layers)):
            axes[f"layers.{i}.weight"] = (names[i + 1], names[i])
            axes[f"layers.{i}.bias"] = (names[i + 1],)
        return axes, frozenset({"input", "output"})
