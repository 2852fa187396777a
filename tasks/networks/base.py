"""The contract of an inner network and the draws of its initial parameters."""

from abc import ABC, abstractmethod
from math import prod, sqrt

import torch
from torch import Tensor, nn

from tasks.base import Params, PermutationAxes


class Layer(nn.Module, ABC):
    """A layer whose parameters start in a way of their own, on its own as in a network."""

    @abstractmethod
    def draw(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """An initial value of one of its own parameters, on the CPU; ``name`` is as in the layer."""


class Network(nn.Module, ABC):
    """An nn.Module that is pure under ``torch.func.functional_call`` and knows the names of its axes.

    The first two constructor arguments of every network are ``input_shape`` (without the batch axis) and
    ``num_outputs``; the task supplies them from its data.
    """

    def permutation_axes(self) -> PermutationAxes | None:
        """Names of the axes of every parameter, and which are fixed; None leaves it to be inferred from a trace."""
        return None

    def figures(self, params: Params) -> dict[str, Tensor]:
        """Scalars that the network itself can tell of its parameters, for evaluation; most know none."""
        return {}

    @abstractmethod
    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, *input_shape) -> (B, ..., num_outputs)``."""

    def init(self, generator: torch.Generator) -> Params:
        """Fresh parameters, each by ``draw``.

        Args:
            generator: CPU generator.

        Returns:
            Params: tensors in the order of ``named_parameters()``.
        """
        return {
            name: self.draw(name, parameter, generator)
            for name, parameter in self.named_parameters()
        }

    def draw(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """One initial tensor: weights N(0, 2 / fan_in) (He et al. 2015), biases 0, norm scales 1.

        A tensor of two or more axes is a weight (out, in, ...); vectors are norm scales or biases. The parameters
        of a ``Layer`` are drawn by it.
        """
        parent, _, own = name.rpartition(".")
        owner = self.get_submodule(parent)
        if isinstance(owner, Layer):
            return owner.draw(own, parameter, generator)
        if parameter.ndim >= 2:
            fan_in = prod(parameter.shape[1:])
            return torch.randn(parameter.shape, generator=generator) * sqrt(2 / fan_in)
        return (
            torch.ones(parameter.shape) if name.endswith("weight") else torch.zeros(parameter.shape)
        )


def check_sizes(**sizes: int) -> None:
    """Raise ValueError for a size below 1."""
    for name, size in sizes.items():
        if size < 1:
            raise ValueError(f"{name} must be at least 1, got {size}.")
