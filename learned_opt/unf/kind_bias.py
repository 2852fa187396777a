"""What is left of layers tied by type where all of their coefficients are zero."""

from collections.abc import Mapping
from typing import Self

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer
from learned_opt.unf.reading import Summary


class KindBias(Layer):
    """A bias for each kind of tensor: ``T(W)[o] = bias[kind of o]``.

    Args:
        bias: ``(kinds, C_out)``.
        kinds: row of each tensor.
        num_terms: of the layer that it stands for, see ``PointwiseUNFLinear``.

    >>> layer = KindBias(torch.tensor([[1.0], [2.0]]), {"w": 1}, {"w": 4})
    >>> layer({"w": torch.zeros(2, 3)})["w"].tolist()
    [[2.0], [2.0]]
    """

    bias: Tensor

    def __init__(
        self, bias: Tensor, kinds: Mapping[str, int], num_terms: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.register_buffer("bias", bias.detach())
        self.kinds = dict(kinds)
        self.num_terms = dict(num_terms)

    @property
    @override
    def separable(self) -> bool:
        return True

    @override
    def part(self, spec: PermutationSpec) -> Self:
        kinds = {name: self.kinds[name] for name in spec.axes}
        num_terms = {name: self.num_terms[name] for name in spec.axes}
        return type(self)(self.bias, kinds, num_terms)

    @override
    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        del shared
        outputs = {}
        for name, kind in self.kinds.items():
            outputs[name] = self.bias[kind].expand(*inputs[name].shape[:-1], -1)
        return outputs

    def beside(self, weight: Tensor) -> "PointwiseKindBias":
        """What a ``PointwiseUNFLinear`` does that has this for its equivariant part.

        Args:
            weight: of the pointwise part, ``(C, C_out)``.
        """
        biases = {}
        for name, kind in self.kinds.items():
            biases[name] = self.num_terms[name] ** -0.5 * self.bias[kind]
        return PointwiseKindBias(weight, biases)


class PointwiseKindBias(Layer):
    """``T(W)[o] = W[o] weight + bias[o]`` for every entry of every tensor o.

    Args:
        weight: ``(C, C_out)``.
        biases: ``(C_out,)`` of each tensor.

    >>> layer = PointwiseKindBias(torch.ones(2, 1), {"w": torch.tensor([0.5])})
    >>> layer({"w": torch.ones(3, 2)})["w"].flatten().tolist()
    [2.5, 2.5, 2.5]
    """

    weight: Tensor
    biases: Tensor

    def __init__(self, weight: Tensor, biases: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.register_buffer("weight", weight.detach())
        self.names = list(biases)
        in_order = torch.stack([bias.detach() for bias in biases.values()])
        self.register_buffer("biases", in_order)  # (number of tensors, C_out)

    @property
    @override
    def separable(self) -> bool:
        return True

    @override
    def part(self, spec: PermutationSpec) -> Self:
        biases = dict(zip(self.names, self.biases.unbind(), strict=True))
        return type(self)(self.weight, {name: biases[name] for name in spec.axes})

    @override
    def columns(self, name: str) -> Tensor | None:
        return self.weight

    @override
    def forward(
        self, inputs: Mapping[str, Tensor | Summary], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        del shared
        outputs = {}
        for name, bias in zip(self.names, self.biases.unbind(), strict=True):
            each = inputs[name]
            dots = each.dots if isinstance(each, Summary) else each @ self.weight
            outputs[name] = dots + bias
        return outputs
