"""Multilayer perceptron, whose hidden layers may be of any class."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from math import prod

from torch import Tensor, nn
from typing_extensions import override

from tasks.base import PermutationAxes
from tasks.networks.base import Network, check_each_size, check_sizes


class MLP(Network):
    """Flatten, then hidden layers with ReLU after each, then one linear layer.

    Args:
        input_shape: shape of one example.
        num_outputs: outputs, e.g. classes.
        hidden_sizes: widths of the hidden layers.
        layer: constructor ``(inputs, outputs)`` of a hidden layer.

    Raises:
        ValueError: a size is below 1.

    >>> import torch
    >>> network = MLP((1, 8, 8), 10, hidden_sizes=(32,))
    >>> network(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 10])
    >>> params = network.init(torch.Generator().manual_seed(0))
    >>> {name: tuple(param.shape) for name, param in params.items() if "weight" in name}
    {'layers.0.weight': (32, 64), 'layers.1.weight': (10, 32)}
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        hidden_sizes: Sequence[int] = (32,),
        layer: Callable[[int, int], nn.Module] = nn.Linear,
    ) -> None:
        super().__init__()
        check_sizes(num_outputs=num_outputs)
        check_each_size("hidden_sizes", hidden_sizes)

        widths = [prod(input_shape), *hidden_sizes]
        self.layers = nn.ModuleList()
        for inputs, outputs in pairwise(widths):
            self.layers.append(layer(inputs, outputs))
        self.layers.append(nn.Linear(widths[-1], num_outputs))

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs.flatten(1)  # (B, inputs)
        for layer in self.layers[:-1]:
            hidden = layer(hidden).relu()
        return self.layers[-1](hidden)

    @override
    def permutation_axes(self) -> PermutationAxes | None:
        # layers of another class have parameters that only a trace can name
        if not all(isinstance(layer, nn.Linear) for layer in self.layers):
            return None

        num_hidden = len(self.layers) - 1
        units = ["input", *(f"hidden{i}" for i in range(num_hidden)), "output"]
        axes: dict[str, tuple[str, ...]] = {}
        for i in range(len(self.layers)):
            axes[f"layers.{i}.weight"] = (units[i + 1], units[i])
            axes[f"layers.{i}.bias"] = (units[i + 1],)
        return axes, frozenset({"input", "output"})
