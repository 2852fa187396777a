"""The contract of an inner network, and how its parameters start."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from math import prod, sqrt
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from tasks.base import Params, PermutationAxes


@runtime_checkable
class SelfInitialised(Protocol):
    """A layer that says itself how its parameters start, whatever network it stands in."""

    def initial_value(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an initial value of one parameter of this layer.

        Args:
            name: name of the parameter within the layer, such as ``weight``.
            parameter: tells the shape.
            generator: CPU generator.

        Returns:
            Tensor: on the CPU, of the parameter's shape.
        """
        ...


class Network(nn.Module, ABC):
    """An inner network: an ``nn.Module`` that is pure under ``torch.func.functional_call``.

    The first two constructor arguments of every network are ``input_shape`` (without the batch
    axis) and ``num_outputs``; the task supplies them from its data.
    """

    def permutation_axes(self) -> PermutationAxes | None:
        """Names of the axes of every parameter, and which of the names are fixed.

        Returns:
            PermutationAxes | None: None leaves it to be inferred from a trace of the task's loss.
        """
        return None

    def figures(self, params: Params) -> dict[str, Tensor]:
        """Scalars for evaluation that the network can tell of its parameters; most know none."""
        return {}

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, *input_shape) -> (B, ..., num_outputs)``."""

    def init(self, generator: torch.Generator) -> Params:
        """Draw fresh parameters, one after the other, by ``init_parameter``.

        Args:
            generator: CPU generator.

        Returns:
            Params: tensors on the CPU, in the order of ``named_parameters()``.
        """
        return {
            name: self.init_parameter(name, parameter, generator)
            for name, parameter in self.named_parameters()
        }

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one initial tensor: weights N(0, 2 / fan_in), biases 0, scales of norms 1.

        A tensor of two or more axes is a weight (out, in, ...); vectors are scales of norms or
        biases. The parameters of a layer that is ``SelfInitialised`` are drawn by that layer.

        Args:
            name: as in ``named_parameters()``.
            parameter: tells the shape.
            generator: CPU generator.

        Returns:
            Tensor: on the CPU, of the parameter's shape.

        Source: He et al. 2015 (arXiv 1502.01852), section 2.2, for the weights.
        """
        layer_name, _, local_name = name.rpartition(".")
        layer = self.get_submodule(layer_name)
        if isinstance(layer, SelfInitialised):
            return layer.initial_value(local_name, parameter, generator)

        if parameter.ndim >= 2:
            fan_in = prod(parameter.shape[1:])
            return torch.randn(parameter.shape, generator=generator) * sqrt(2 / fan_in)

        if name.endswith("weight"):
            return torch.ones(parameter.shape)
        return torch.zeros(parameter.shape)


def check_sizes(**sizes: int) -> None:
    """Raise ValueError for a size below 1, under the name of its argument."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")


def check_each_size(name: str, sizes: Sequence[int]) -> None:
    """Raise ValueError for an entry of a sequence of sizes that is below 1."""
    for index, size in enumerate(sizes):
        check_sizes(**{f"{name}[{index}]": size})


def image_sizes(network: str, input_shape: Sequence[int]) -> tuple[int, int, int]:
    """Channels, height and width of the images that a network reads.

    Args:
        network: what to call the network in the message.
        input_shape: shape of one example.

    Raises:
        ValueError: the shape has other than three axes.
    """
    if len(input_shape) != 3:
        raise ValueError(
            f"{network} needs inputs (channels, height, width), got the shape {tuple(input_shape)}."
        )
    channels, height, width = input_shape
    return channels, height, width
