"""What is left of a layer tied by type where all of its coefficients are zero."""

from collections.abc import Mapping
from typing import Self

from torch import Tensor
from typing_extensions import override

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer


class KindBias(Layer):
    """A bias for each kind of tensor: ``T(W)[o] = bias[kind of o]``.

    Args:
        bias: ``(kinds, C_out)``.
        kinds: row of each tensor.
        num_terms: of the layer that it stands for, see ``PointwiseUNFLinear``.

    >>> import torch
    >>> layer = KindBias(torch.tensor([[1.0], [2.0]]), {"w": 1}, {"w": 4})
    >>> layer({"w": torch.zeros(2, 3)})["w"].tolist()
    [[2.0], [2.0]]
    """

    def __init__(
        self, bias: Tensor, kinds: Mapping[str, int], num_terms: Mapping[str, int]
    ) -> None:
        super().__init__()
        self.bias = bias
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
