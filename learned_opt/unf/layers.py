"""Equivariant layers on weight spaces.

Every layer maps a dict ``name -> Tensor[*shape, C]`` (C channels, last) and an optional vector of *shared*
channels, which are the same for every entry of every tensor (a time code, say). Shared channels enter as a bias
computed once, they are never tiled.

Legend: K sources, D targets, each counted once for every folded index; C_in / C_out channels.
"""

from collections.abc import Mapping
from copy import copy
from math import sqrt
from typing import Any, Self

import torch
from torch import Tensor, nn

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer, with_modules
from learned_opt.unf.fixed import fold, num_folds, unfold, without_folded
from learned_opt.unf.mixing import gain, matmul, mix
from learned_opt.unf.plan import Pattern, make_plan
from learned_opt.unf.reading import Reducer, spread, total
from learned_opt.unf.type_tied import TypeTied

TIES = ("tensor", "type")


class UNFLinear(Layer):
    """The most general equivariant linear map of a weight space, with channels.

    ``T(W)[o] = bias + sum_b lambda_b E_b(W)``: one ``(C_in, C_out)`` matrix lambda_b for each basis map E_b.

    Args:
        spec: permutation spec of inputs and outputs. Fixed names count as permutations of their own, as in the paper,
            but for the folded ones, each index of which is treated as a tensor of its own.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: one bias per (output tensor, out channel), zero at the start.
        init: ``lecun`` (std sqrt(1/fan_in)), ``he`` (sqrt(2/fan_in)) or ``zero``; fan_in = in_channels x terms that
            arrive at the output tensor.
        tie: what has coefficients of its own: each basis map of each pair of tensors (``tensor``), or each type of
            basis map (``type``), so that one theta fits every spec; that layer is a ``TypeTied``.

    Raises:
        ValueError: an unknown tie or init, or folded axes where types are tied.

    Source: Zhou et al. 2024 (arXiv 2402.05232), equation 7; means instead of sums over aggregated axes, and the
    bias and init of the authors' code.
    """

    def __new__(cls, *args: Any, tie: str = "tensor", **kwargs: Any) -> Any:
        """The layer that ``tie`` asks for."""
        if tie not in TIES:
            raise ValueError(f"tie must be one of {', '.join(TIES)}, got {tie!r}.")
        return TypeTied(*args, **kwargs) if tie == "type" else super().__new__(cls)

    def __init__(
        self,
        spec: PermutationSpec,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        init: str = "lecun",
        *,
        tie: str = "tensor",
    ) -> None:
        super().__init__()
        del tie
        self.spec, self.plan, self.num_folds = (
            spec,
            make_plan(without_folded(spec)),
            num_folds(spec),
        )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_terms = (
            self._num_terms()
        )  # basis maps that arrive at one entry of each output tensor
        self.weights = nn.ParameterDict()
        for group in self.plan.groups:
            fan_in = torch.tensor(
                [in_channels * self.num_terms[name] for name in self._indices(group.targets)]
            )
            std = gain(init) * fan_in.rsqrt()[:, None]
            shape = (len(self._indices(group.sources)), in_channels, len(fan_in), out_channels)
            self.weights[_key(group.signature)] = nn.Parameter(torch.randn(shape) * std)
        sizes = {
            escape(name): folds * out_channels for name, folds in self.num_folds.items() if bias
        }
        self.biases = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(size)) for name, size in sizes.items()}
        )

    @property
    def num_basis(self) -> int:
        """Number of basis maps, a sum of products of Bell numbers."""
        return sum(weight.shape[0] * weight.shape[2] for weight in self.weights.values())

    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Apply the map.

        Args:
            inputs: ``name -> Tensor[*shape, C]`` for every name of the spec.
            shared: channels ``(C_shared,)`` that are constant over all entries, or None; C + C_shared = in_channels.

        Returns:
            dict[str, Tensor]: ``name -> Tensor[*shape, out_channels]``.
        """
        folded = fold(self.spec, inputs)
        read = Reducer(folded)
        terms = {name: [self.biases[escape(name)]] if self.biases else [] for name in inputs}
        for group in self.plan.groups:
            weight = self.weights[_key(group.signature)]
            mixed = mix(
                [read(source) for source in group.sources], weight, shared
            )  # (*kept, D, C_out)
            parts = mixed.split([self.num_folds[target.parameter] for target in group.targets], -2)
            for target, part in zip(group.targets, parts, strict=True):
                terms[target.parameter].append(
                    spread(part.flatten(-2), target, folded[target.parameter])
                )
        return unfold(self.spec, {name: total(own) for name, own in terms.items()})

    def _indices(self, patterns: tuple[Pattern, ...]) -> list[str]:
        """The parameter of each pattern, as often as it has folded indices."""
        return [
            pattern.parameter
            for pattern in patterns
            for _ in range(self.num_folds[pattern.parameter])
        ]

    def _num_terms(self) -> dict[str, int]:
        num_terms = dict.fromkeys(self.spec.axes, 0)
        for group in self.plan.groups:
            for target in group.targets:
                num_terms[target.parameter] += len(self._indices(group.sources))
        return num_terms

    def extra_repr(self) -> str:
        """Channels and number of basis maps, for ``print``."""
        return f"{self.in_channels}, {self.out_channels}, num_basis={self.num_basis}"


class Pointwise(Layer):
    """One dense layer applied to the channels of every entry, shared over all tensors.

    Args:
        spec: not used; the layer fits every spec.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: add a bias per out channel, zero at the start.
        init: as in ``UNFLinear``, with fan_in = in_channels.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        in_channels: int,
        out_channels: int,
        bias: bool = True,
        init: str = "lecun",
    ) -> None:
        super().__init__()
        del spec
        self.weight = nn.Parameter(
            torch.randn(in_channels, out_channels) * (gain(init) / sqrt(in_channels))
        )
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    @property
    def fits_every_spec(self) -> bool:
        """Nothing here knows the spec."""
        return True

    def rebind(self, spec: PermutationSpec) -> Self:
        """See ``Layer.rebind``."""
        return copy(self)

    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Apply the layer to every tensor; shapes as in ``UNFLinear``."""
        weight, bias = self.affine(shared)
        return {name: matmul(tensor, weight) + bias for name, tensor in inputs.items()}

    def affine(self, shared: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weight ``(C, C_out)`` and bias ``(C_out,)`` of the channels that are not shared."""
        weight, bias = (
            self.weight,
            self.weight.new_zeros(self.weight.shape[1]) if self.bias is None else self.bias,
        )
        if shared is None:
            return weight, bias
        split = weight.shape[0] - shared.shape[0]
        return weight[:split], bias + shared @ weight[split:]


class PointwiseUNFLinear(Layer):
    """One pointwise layer without bias, shared over all tensors, plus ``UNFLinear / sqrt(terms)`` that starts at zero.

    The span is that of ``UNFLinear``. The shared coefficients get their gradient from every weight at once, where a
    UNF layer has to learn the same thing once for each tensor. ``terms`` is how many basis maps arrive at an output
    tensor: the noise of so many coefficients, each moved by the same outer step, would drown the shared ones.

    Args:
        spec: permutation spec of inputs and outputs.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        init: of the pointwise part, as in ``Pointwise``.
        tie: of the equivariant part, as in ``UNFLinear``.

    Source: ``PointwiseInitNFLinear`` of the authors' code of Zhou et al. 2024, without the division.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        in_channels: int,
        out_channels: int,
        init: str = "lecun",
        tie: str = "tensor",
    ) -> None:
        super().__init__()
        self.equivariant = UNFLinear(spec, in_channels, out_channels, init="zero", tie=tie)
        self.pointwise = Pointwise(spec, in_channels, out_channels, bias=False, init=init)

    @property
    def fits_every_spec(self) -> bool:
        """That of the equivariant part."""
        return self.equivariant.fits_every_spec

    def rebind(self, spec: PermutationSpec) -> Self:
        """See ``Layer.rebind``."""
        return with_modules(self, equivariant=self.equivariant.rebind(spec))

    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Apply both parts and add; shapes as in ``UNFLinear``."""
        own = self.pointwise(inputs, shared)
        equivariant = self.equivariant(inputs, shared)
        return {
            name: own[name] + terms**-0.5 * equivariant[name]
            for name, terms in self.equivariant.num_terms.items()
        }


def _key(signature: tuple[str, ...]) -> str:
    return f"({','.join(map(escape, signature))})"


def escape(name: str) -> str:
    """Names may hold dots, keys of a ParameterDict may not."""
    return name.replace(".", "/")


def zero_biases(num_folds: Mapping[str, int], channels: int) -> nn.ParameterDict:
    """One bias ``(F C_out,)`` of zeros for each tensor, F the number of its folded indices."""
    biases = {}
    for name, folds in num_folds.items():
        biases[escape(name)] = nn.Parameter(torch.zeros(folds * channels))
    return nn.ParameterDict(biases)
