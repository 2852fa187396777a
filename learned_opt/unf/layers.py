"""Equivariant layers on weight spaces, with coefficients of their own for each spec.

Legend: K sources, D targets, each counted once for every folded index; C_in / C_out channels.
"""

from collections.abc import Callable, Mapping
from copy import copy
from math import sqrt
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer, with_modules
from learned_opt.unf.coefficients import Coefficients, escape, weight_key, zero_biases
from learned_opt.unf.fixed import fold, num_folds, unfold, without_folded
from learned_opt.unf.kind_bias import KindBias
from learned_opt.unf.mixing import gain, matmul, mix_group
from learned_opt.unf.plan import Group, Pattern, make_plan
from learned_opt.unf.reading import Reducer, Summary, spread, total


class UNFLinear(Layer):
    """The most general equivariant linear map of a weight space, with channels.

    ``T(W)[o] = bias + sum_b lambda_b E_b(W)``: one ``(C_in, C_out)`` matrix lambda_b for each basis
    map E_b. ``TypeTied`` is the layer whose coefficients fit every spec.

    Args:
        spec: permutation spec of inputs and outputs. Fixed names count as permutations of their
            own, as in the paper, but for the folded ones, each index of which is treated as a
            tensor of its own.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: one bias per (output tensor, out channel), zero at the start.
        init: ``lecun`` (std sqrt(1/fan_in)), ``he`` (sqrt(2/fan_in)) or ``zero``; fan_in =
            in_channels x terms that arrive at the output tensor.

    Raises:
        ValueError: an unknown init.

    Source: Zhou et al. 2024 (arXiv 2402.05232), equation 7; means instead of sums over aggregated
    axes, and the bias and init of the authors' code.

    >>> spec = PermutationSpec({"weight": ("hidden", "in"), "bias": ("hidden",)})
    >>> layer = UNFLinear(spec, in_channels=2, out_channels=3)
    >>> layer.num_basis
    10
    >>> inputs = {"weight": torch.randn(5, 4, 2), "bias": torch.randn(5, 2)}
    >>> outputs = layer(inputs)
    >>> outputs["weight"].shape
    torch.Size([5, 4, 3])
    >>> element = spec.draw(inputs, torch.Generator().manual_seed(0))
    >>> permuted_first = layer(spec.apply(inputs, element))
    >>> permuted_last = spec.apply(outputs, element)
    >>> torch.allclose(permuted_first["weight"], permuted_last["weight"], atol=1e-6)
    True
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
        self.spec = spec
        self.plan = make_plan(without_folded(spec))
        self.num_folds = num_folds(spec)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_terms = self.plan.num_terms(self.num_folds)

        self.weights = nn.ParameterDict()
        for group in self.plan.groups:
            self.weights[weight_key(group.signature)] = self._draw(group, gain(init))
        self.biases = zero_biases(self.num_folds if bias else {}, out_channels)

    @property
    def num_basis(self) -> int:
        """Number of basis maps, a sum of products of Bell numbers."""
        return sum(weight.shape[0] * weight.shape[2] for weight in self.weights.values())

    @override
    def columns(self, name: str) -> Tensor | None:
        whole = None if self.spec.folded else self.plan.whole(name)
        if whole is None:
            return None

        group, source = whole
        weight = self.weights[weight_key(group.signature)]  # (K, C, D, C_out)
        return weight[group.sources.index(source)].flatten(1)

    @override
    def coefficients(self) -> Coefficients | None:
        if self.spec.folded:
            return None
        groups = [self.weights[weight_key(group.signature)] for group in self.plan.groups]
        biases = [self.biases[escape(name)] for name in self.spec.axes if self.biases]
        return Coefficients(self.plan, groups, biases)

    @override
    def forward(
        self, inputs: Mapping[str, Tensor | Summary], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Apply the map.

        Args:
            inputs: ``name -> Tensor[*shape, C]`` for every name of the spec, or a summary where
                the layer has ``columns``.
            shared: channels ``(C_shared,)`` that are constant over all entries, or None;
                C + C_shared = in_channels.

        Returns:
            dict[str, Tensor]: ``name -> Tensor[*shape, out_channels]``.
        """
        tensors: Any = inputs  # no summaries where axes are folded, see ``columns``
        folded: Mapping[str, Tensor | Summary] = fold(self.spec, tensors)
        read = Reducer(folded)

        terms: dict[str, list[Tensor]] = {}
        for name in inputs:
            terms[name] = [self.biases[escape(name)]] if self.biases else []

        for group in self.plan.groups:
            weight = self.weights[weight_key(group.signature)]
            mixed = mix_group(group, weight, read, shared)  # (*kept, D, C_out)
            sizes = [self.num_folds[target.parameter] for target in group.targets]
            for target, part in zip(group.targets, mixed.split(sizes, -2), strict=True):
                name = target.parameter
                terms[name].append(spread(part.flatten(-2), target, folded[name]))

        outputs = {name: total(tensor_terms) for name, tensor_terms in terms.items()}
        return unfold(self.spec, outputs)

    def _draw(self, group: Group, std: float) -> nn.Parameter:
        """Initial coefficients of a group, ``(K, C_in, D, C_out)``."""
        targets = self._folded_indices(group.targets)
        fan_in = torch.tensor([self.in_channels * self.num_terms[name] for name in targets])
        scale = std * fan_in.rsqrt()[:, None]  # (D, 1)
        num_sources = len(self._folded_indices(group.sources))
        shape = (num_sources, self.in_channels, len(targets), self.out_channels)
        return nn.Parameter(torch.randn(shape) * scale)

    def _folded_indices(self, patterns: tuple[Pattern, ...]) -> list[str]:
        """The parameter of each pattern, as often as it has folded indices."""
        indices: list[str] = []
        for pattern in patterns:
            indices += [pattern.parameter] * self.num_folds[pattern.parameter]
        return indices

    @override
    def extra_repr(self) -> str:
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
        std = gain(init) / sqrt(in_channels)
        self.weight = nn.Parameter(torch.randn(in_channels, out_channels) * std)
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    @property
    @override
    def fits_every_spec(self) -> bool:
        return True

    @property
    @override
    def separable(self) -> bool:
        return True

    @override
    def rebind(self, spec: PermutationSpec) -> Self:
        return copy(self)

    @override
    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        weight, bias = self.affine(shared)
        return {name: matmul(tensor, weight) + bias for name, tensor in inputs.items()}

    def affine(self, shared: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Weight ``(C, C_out)`` and bias ``(C_out,)`` of the channels that are not shared."""
        weight = self.weight
        bias = weight.new_zeros(weight.shape[1]) if self.bias is None else self.bias
        if shared is None:
            return weight, bias

        num_own = weight.shape[0] - shared.shape[0]
        return weight[:num_own], bias + shared @ weight[num_own:]


class PointwiseUNFLinear(Layer):
    """A pointwise layer, shared over all tensors, plus an equivariant layer that starts at zero.

    The span is that of the equivariant layer, which is divided by sqrt(terms). The shared
    coefficients get their gradient from every weight at once, where a UNF layer has to learn the
    same thing once for each tensor. ``terms`` is how many basis maps arrive at an output tensor:
    the noise of so many coefficients, each moved by the same outer step, would drown the shared
    ones.

    Args:
        spec: permutation spec of inputs and outputs.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        init: of the pointwise part, as in ``Pointwise``.
        equivariant: constructor of the other part, ``UNFLinear`` or ``TypeTied``.

    Source: ``PointwiseInitNFLinear`` of the authors' code of Zhou et al. 2024, without the
    division.

    >>> from learned_opt.unf.type_tied import TypeTied
    >>> spec = PermutationSpec({"weight": ("hidden", "in"), "bias": ("hidden",)})
    >>> PointwiseUNFLinear(spec, 2, 3).fits_every_spec
    False
    >>> PointwiseUNFLinear(spec, 2, 3, equivariant=TypeTied).fits_every_spec
    True
    """

    def __init__(
        self,
        spec: PermutationSpec,
        in_channels: int,
        out_channels: int,
        init: str = "lecun",
        equivariant: Callable[..., Any] = UNFLinear,
    ) -> None:
        super().__init__()
        self.equivariant = equivariant(spec, in_channels, out_channels, init="zero")
        self.pointwise = Pointwise(spec, in_channels, out_channels, bias=False, init=init)

    @property
    @override
    def fits_every_spec(self) -> bool:
        return self.equivariant.fits_every_spec

    @override
    def rebind(self, spec: PermutationSpec) -> Self:
        return with_modules(self, equivariant=self.equivariant.rebind(spec))

    @override
    def simplified(self) -> Layer:
        equivariant = self.equivariant.simplified()
        if isinstance(equivariant, KindBias):
            return equivariant.beside(self.pointwise.weight)
        return with_modules(self, equivariant=equivariant)

    @override
    def columns(self, name: str) -> Tensor | None:
        columns = self.equivariant.columns(name)
        if columns is None:
            return None

        # what is pointwise goes through the column of the tensor to itself, see ``forward``
        group, _ = self.equivariant.plan.whole(name)
        position = [target.parameter for target in group.targets].index(name)
        weight = self.pointwise.weight * self.equivariant.num_terms[name] ** 0.5
        targets = list(columns.split(weight.shape[1], 1))  # D of (C, C_out)
        targets[position] = targets[position] + weight
        return torch.cat(targets, 1)

    @override
    def forward(
        self, inputs: Mapping[str, Tensor | Summary], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        whole = {name: each for name, each in inputs.items() if isinstance(each, Tensor)}
        pointwise = self.pointwise(whole, shared)
        equivariant = self.equivariant(inputs, shared)

        outputs = {}
        for name, terms in self.equivariant.num_terms.items():
            outputs[name] = terms**-0.5 * equivariant[name]
            if name in whole:
                outputs[name] = pointwise[name] + outputs[name]
        return outputs
