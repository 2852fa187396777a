"""Stacks of layers on a weight space, and the invariant read-out."""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise, takewhile
from typing import Any, Self, cast

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer, with_modules
from learned_opt.unf.coefficients import Coefficients
from learned_opt.unf.fixed import FIXED_AXES, PositionalEncoding, fold_short
from learned_opt.unf.fused_backward import apply_pointwise
from learned_opt.unf.layers import Pointwise, UNFLinear
from learned_opt.unf.reading import Summary, mean_over


class InvariantPool(nn.Module):
    """Mean over all entries of each tensor, concatenated in the order of the dict.

    ``name -> Tensor[*shape, C]`` becomes ``(num_tensors * C,)``.

    >>> InvariantPool()({"w": torch.ones(3, 4, 2), "b": torch.zeros(3, 2)})
    tensor([1., 1., 0., 0.])
    """

    @override
    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        means = [mean_over(tensor.reshape(-1, tensor.shape[-1]), 0) for tensor in inputs.values()]
        return torch.cat(means)


class UNF(nn.Module):
    """A stack of layers with a pointwise nonlinearity between them.

    Args:
        spec: permutation spec.
        channels: channels before, between and after the layers.
        trunk: constructor of all layers but the last.
        head: constructor of the last layer.
        activation: pointwise nonlinearity.
        fixed_axes: how fixed axes are read, ``permute``, ``encode`` (after the first layer) or
            ``fold``.

    Raises:
        ValueError: fewer than two channel widths, an unknown ``fixed_axes``, or one that needs the
            lengths of fixed axes, which the spec does not know.

    >>> spec = PermutationSpec({"weight": ("hidden", "in"), "bias": ("hidden",)})
    >>> network = UNF(spec, channels=(2, 8, 1))
    >>> outputs = network({"weight": torch.zeros(5, 3, 2), "bias": torch.zeros(5, 2)})
    >>> outputs["weight"].shape
    torch.Size([5, 3, 1])
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
        constructors = [trunk] * (len(channels) - 2) + [head]
        self.layers = nn.ModuleList()
        for make_layer, widths in zip(constructors, pairwise(channels), strict=True):
            self.layers.append(make_layer(spec, *widths))
        self.encoding = PositionalEncoding(spec, channels[1]) if fixed_axes == "encode" else None
        self.activation = activation

        # how many leading layers run as one kernel, which knows no encoding and only the ReLU
        self._is_plain = self.encoding is None and activation is torch.relu
        self.num_fused = len(list(takewhile(_is_pointwise, self.layers))) if self._is_plain else 0

    @property
    def pointwise(self) -> bool:
        """Whether every entry of every tensor is mapped by itself."""
        return self.encoding is None and all(map(_is_pointwise, self.layers))

    @property
    def fits_every_spec(self) -> bool:
        """Whether no parameter belongs to the spec: that of the layers, and no encodings."""
        layers = [cast(Layer, layer) for layer in self.layers]
        return self.encoding is None and all(layer.fits_every_spec for layer in layers)

    @property
    def separable(self) -> bool:
        """Whether the output of a tensor depends on that tensor and its kind alone."""
        return self.encoding is None and all(cast(Layer, layer).separable for layer in self.layers)

    @property
    def is_silent(self) -> bool:
        """Whether all outputs are zero, with the numbers that the last layer has."""
        return cast(Layer, self.layers[-1]).is_silent

    def simplified(self) -> Self:
        """The same function of the numbers that its layers have, see ``Layer.simplified``."""
        return self._with_layers([cast(Layer, layer).simplified() for layer in self.layers])

    def part(self, spec: PermutationSpec) -> Self:
        """The same function on a part of its weight space, where it is ``separable``."""
        return self._with_layers([cast(Layer, layer).part(spec) for layer in self.layers])

    def rebind(self, spec: PermutationSpec) -> Self:
        """The same parameters on another spec, in a new module, where ``fits_every_spec``."""
        return self._with_layers([cast(Layer, layer).rebind(spec) for layer in self.layers])

    def _with_layers(self, layers: list[Layer]) -> Self:
        return with_modules(self, layers=nn.ModuleList(layers))

    @override
    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        hidden, rest = self._begin(inputs, shared)
        return self._end(hidden, rest)

    def columns(self, name: str) -> Tensor | None:
        """Of the layer behind the leading pointwise ones, see ``Layer.columns``."""
        layer = cast(Layer, self.layers[self.num_fused])
        return layer.columns(name)

    def coefficients(self) -> list[Coefficients]:
        """Those of all layers; none where a kernel cannot run the stack."""
        if not self._is_plain:
            return []
        layers = [cast(Layer, layer).coefficients() for layer in self.layers]
        mixing = [layer for layer in layers if layer is not None]
        return mixing if len(mixing) == len(layers) else []

    def behind_pointwise(self, hidden: Mapping[str, Tensor | Summary]) -> dict[str, Tensor]:
        """The output, from that of the leading pointwise layers."""
        return self._end(hidden, list(self.layers[self.num_fused :]))

    def _end(self, hidden: Any, rest: list[nn.Module]) -> dict[str, Tensor]:
        if not rest:
            return hidden

        for layer in rest[:-1]:
            hidden = self._activate(layer(hidden))
        return rest[-1](hidden)

    def _begin(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None
    ) -> tuple[dict[str, Tensor], list[nn.Module]]:
        """Run the leading pointwise layers, or else the first layer.

        Returns:
            tuple[dict[str, Tensor], list[nn.Module]]: their output, activated if any layers are
            left, and the layers that are left.
        """
        layers = list(self.layers)
        if self.num_fused:
            rest = layers[self.num_fused :]
            weights, biases = self.affine(shared)
            return apply_pointwise(inputs, weights, biases, final_relu=bool(rest)), rest

        rest = layers[1:]
        hidden = layers[0](inputs, shared)
        if self.encoding is not None:
            hidden = self.encoding(hidden)
        return self._activate(hidden) if rest else hidden, rest

    def affine(self, shared: Tensor | None) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
        """Weights and biases of the leading pointwise layers.

        Args:
            shared: channels ``(C_shared,)`` that are constant over all entries, or None.

        Returns:
            tuple[Sequence[Tensor], Sequence[Tensor]]: weights ``(C_l, C_{l+1})`` and biases
            ``(C_{l+1},)``.
        """
        first, *others = [cast(Pointwise, layer) for layer in self.layers[: self.num_fused]]
        pairs = [first.affine(shared), *(layer.affine() for layer in others)]
        weights, biases = zip(*pairs, strict=True)
        return weights, biases

    def _activate(self, hidden: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: self.activation(tensor) for name, tensor in hidden.items()}


def _is_pointwise(layer: nn.Module) -> bool:
    return isinstance(layer, Pointwise)
