"""Stacks of layers on a weight space, and the invariant read-out."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Self, cast

import torch
from torch import Tensor, nn

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer, with_modules
from learned_opt.unf.fixed import FIXED_AXES, PositionalEncoding, fold_short
from learned_opt.unf.fused import apply_pointwise
from learned_opt.unf.layers import Pointwise, UNFLinear


class InvariantPool(nn.Module):
    """Mean over all entries of each tensor, concatenated: ``(num_tensors * C,)``."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Pool ``name -> Tensor[*shape, C]`` in the order of the dict."""
        return torch.cat(
            [tensor.reshape(-1, tensor.shape[-1]).mean(0) for tensor in inputs.values()]
        )


class UNF(nn.Module):
    """A stack of layers with a pointwise nonlinearity between them.

    Args:
        spec: permutation spec.
        channels: channels before, between and after the layers.
        trunk: constructor of all layers but the last.
        head: constructor of the last layer.
        activation: pointwise nonlinearity.
        fixed_axes: what to make of fixed axes, ``permute``, ``encode`` (after the first layer) or ``fold``.

    Raises:
        ValueError: fewer than two channel widths, an unknown ``fixed_axes``, or one that needs the lengths of fixed
            axes, which the spec does not know.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        channels: tuple[int, ...],
        trunk: Callable[..., nn.Module] = UNFLinear,
        head: Callable[..., nn.Module] = UNFLinear,
        activation: Callable[[Tensor], Tensor] = torch.relu,
        fixed_axes: str = "permute",
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"channels must name an input and an output width, got {channels}.")
        if fixed_axes not in FIXED_AXES:
            raise ValueError(
                f"fixed_axes must be one of {', '.join(FIXED_AXES)}, got {fixed_axes!r}."
            )
        if fixed_axes == "fold":
            spec = fold_short(spec)
        kinds = [trunk] * (len(channels) - 2) + [head]
        sizes = pairwise(channels)
        self.layers = nn.ModuleList(
            kind(spec, *size) for kind, size in zip(kinds, sizes, strict=True)
        )
        self.encoding = PositionalEncoding(spec, channels[1]) if fixed_axes == "encode" else None
        self.activation = activation
        plain = self.encoding is None and activation is torch.relu
        self.num_fused = len(list(takewhile(_is_pointwise, self.layers))) if plain else 0

    @property
    def pointwise(self) -> bool:
        """Whether every entry of every tensor is mapped by itself."""
        return self.encoding is None and all(map(_is_pointwise, self.layers))

    @property
    def fits_every_spec(self) -> bool:
        """Whether no parameter belongs to the spec: that of the layers, and no encodings."""
        return self.encoding is None and all(
            cast(Layer, layer).fits_every_spec for layer in self.layers
        )

    def rebind(self, spec: PermutationSpec) -> Self:
        """The same parameters on another spec, in a new module, where ``fits_every_spec``."""
        return with_modules(
            self, layers=nn.ModuleList(cast(Layer, layer).rebind(spec) for layer in self.layers)
        )

    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Apply all layers; ``shared`` channels enter the first."""
        hidden, rest = self._begin(inputs, shared)
        if not rest:
            return hidden
        for layer in rest[:-1]:
            hidden = self._activate(layer(hidden))
        return rest[-1](hidden)

    def _begin(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None
    ) -> tuple[dict[str, Tensor], list[nn.Module]]:
        """What the leading pointwise layers, or else the first layer, make of the input, and the layers that are left.

        The result is activated if any are left.
        """
        layers = list(self.layers)
        if self.num_fused:
            weights, biases = self.affine(shared)
            rest = layers[self.num_fused :]
            return apply_pointwise(inputs, weights, biases, final_relu=bool(rest)), rest
        hidden, rest = layers[0](inputs, shared), layers[1:]
        if self.encoding is not None:
            hidden = self.encoding(hidden)
        return self._activate(hidden) if rest else hidden, rest

    def affine(self, shared: Tensor | None) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Weights ``(C_l, C_{l+1})`` and biases ``(C_{l+1},)`` of the leading pointwise layers."""
        first = [cast(Pointwise, layer) for layer in self.layers[: self.num_fused]]
        weights, biases = zip(
            first[0].affine(shared), *[layer.affine() for layer in first[1:]], strict=True
        )
        return weights, biases

    def _activate(self, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.activation(tensor) for name, tensor in hidden.items()}


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, Pointwise)
