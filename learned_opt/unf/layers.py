"""Equivariant and invariant layers on weight spaces.

Every layer maps a dict ``name -> Tensor[*shape, C]`` (C channels, last) and an optional vector of *shared*
channels, which are the same for every entry of every tensor (a time code, say). Shared channels enter as a bias
computed once, they are never tiled.

Legend: K sources, D targets, C_in / C_out channels.
"""

from collections.abc import Callable, Mapping
from itertools import pairwise
from math import sqrt

import torch
from torch import Tensor, nn

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.plan import Pattern, make_plan

INIT_GAINS = {"lecun": 1.0, "he": sqrt(2.0), "zero": 0.0}


def _gain(init: str) -> float:
    if init not in INIT_GAINS:
        raise ValueError(f"init must be one of {sorted(INIT_GAINS)}, got {init!r}.")
    return INIT_GAINS[init]


class UNFLinear(nn.Module):
    """The most general equivariant linear map of a weight space, with channels.

    ``T(W)[o] = bias + sum_b lambda_b E_b(W)``: one ``(C_in, C_out)`` matrix lambda_b for each basis map E_b.

    Args:
        spec: permutation spec of inputs and outputs. Fixed names count as permutations of their own, as in the paper.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: one bias per (output tensor, out channel), zero at the start.
        init: ``lecun`` (std sqrt(1/fan_in)), ``he`` (sqrt(2/fan_in)) or ``zero``; fan_in = in_channels x terms that
            arrive at the output tensor.

    Source: Zhou et al. 2024 (arXiv 2402.05232), equation 7; means instead of sums over aggregated axes, and the
    bias and init of the authors' code.
    """

    def __init__(
        self, spec: PermutationSpec, in_channels: int, out_channels: int, bias: bool = True, init: str = "lecun"
    ) -> None:
        super().__init__()
        self.spec, self.plan = spec, make_plan(spec)
        self.in_channels, self.out_channels = in_channels, out_channels
        gain = _gain(init)
        self.weights = nn.ParameterDict()
        for group in self.plan.groups:
            fan_in = torch.tensor([in_channels * self.plan.num_terms[t.parameter] for t in group.targets])
            std = gain * fan_in.rsqrt()[:, None]
            shape = (len(group.sources), in_channels, len(group.targets), out_channels)
            self.weights[_key(group.signature)] = nn.Parameter(torch.randn(shape) * std)
        self.biases = nn.ParameterDict(
            {_escape(name): nn.Parameter(torch.zeros(out_channels)) for name in spec.axes} if bias else {}
        )

    @property
    def num_basis(self) -> int:
        """Number of basis maps, a sum of products of Bell numbers."""
        return self.plan.num_basis

    def forward(self, inputs: Mapping[str, Tensor], shared: Tensor | None = None) -> dict[str, Tensor]:
        """Apply the map.

        Args:
            inputs: ``name -> Tensor[*shape, C]`` for every name of the spec.
            shared: channels ``(C_shared,)`` that are constant over all entries, or None; C + C_shared = in_channels.

        Returns:
            dict[str, Tensor]: ``name -> Tensor[*shape, out_channels]``.
        """
        reduce = _Reducer(inputs)
        outputs: dict[str, Tensor] = {}
        for group in self.plan.groups:
            weight = self.weights[_key(group.signature)]
            mixed = _mix([reduce(source) for source in group.sources], weight, shared)  # (*kept, D, C_out)
            for target, part in zip(group.targets, mixed.unbind(-2), strict=True):
                name, full = target.parameter, _spread(part, target, inputs[target.parameter])
                outputs[name] = outputs[name] + full if name in outputs else full
        if self.biases:
            outputs = {name: outputs[name] + self.biases[_escape(name)] for name in outputs}
        return {name: outputs[name] for name in inputs}

    def extra_repr(self) -> str:
        """Channels and number of basis maps, for ``print``."""
        return f"{self.in_channels}, {self.out_channels}, num_basis={self.num_basis}"


class Pointwise(nn.Module):
    """One dense layer applied to the channels of every entry, shared over all tensors.

    Args:
        spec: not used; the layer fits every spec.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: add a bias per out channel, zero at the start.
        init: as in ``UNFLinear``, with fan_in = in_channels.
    """

    def __init__(
        self, spec: PermutationSpec, in_channels: int, out_channels: int, bias: bool = True, init: str = "lecun"
    ) -> None:
        super().__init__()
        del spec
        self.weight = nn.Parameter(torch.randn(in_channels, out_channels) * (_gain(init) / sqrt(in_channels)))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None

    def forward(self, inputs: Mapping[str, Tensor], shared: Tensor | None = None) -> dict[str, Tensor]:
        """Apply the layer to every tensor; shapes as in ``UNFLinear``."""
        weight, constant = self.weight, self.bias
        if shared is not None:
            split = weight.shape[0] - shared.shape[0]
            weight, offset = weight[:split], shared @ weight[split:]
            constant = offset if constant is None else constant + offset
        outputs = {name: _matmul(tensor, weight) for name, tensor in inputs.items()}
        return outputs if constant is None else {name: tensor + constant for name, tensor in outputs.items()}


class InvariantPool(nn.Module):
    """Mean over all entries of each tensor, concatenated: ``(num_tensors * C,)``."""

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """Pool ``name -> Tensor[*shape, C]`` in the order of the dict."""
        return torch.cat([tensor.reshape(-1, tensor.shape[-1]).mean(0) for tensor in inputs.values()])


class UNF(nn.Module):
    """A stack of layers with a pointwise nonlinearity between them.

    Args:
        spec: permutation spec.
        channels: channels before, between and after the layers.
        trunk: constructor of all layers but the last.
        head: constructor of the last layer.
        activation: pointwise nonlinearity.
    """

    def __init__(
        self,
        spec: PermutationSpec,
        channels: tuple[int, ...],
        trunk: Callable[..., nn.Module] = UNFLinear,
        head: Callable[..., nn.Module] = UNFLinear,
        activation: Callable[[Tensor], Tensor] = torch.relu,
    ) -> None:
        super().__init__()
        if len(channels) < 2:
            raise ValueError(f"channels must name an input and an output width, got {channels}.")
        kinds = [trunk] * (len(channels) - 2) + [head]
        sizes = pairwise(channels)
        self.layers = nn.ModuleList(kind(spec, *size) for kind, size in zip(kinds, sizes, strict=True))
        self.activation = activation

    def forward(self, inputs: Mapping[str, Tensor], shared: Tensor | None = None) -> dict[str, Tensor]:
        """Apply all layers; ``shared`` channels enter the first."""
        hidden = self.layers[0](inputs, shared)
        for layer in self.layers[1:]:
            hidden = layer({name: self.activation(tensor) for name, tensor in hidden.items()})
        return hidden


class _Reducer:
    """Reads patterns out of the inputs; every distinct reduction is computed once, from the next larger one."""

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        self.inputs = inputs
        self.cache: dict[Pattern, Tensor] = {}

    def __call__(self, pattern: Pattern) -> Tensor:
        """The input averaged over the blocks that are not kept, kept blocks in order: ``(*kept, C)``."""
        canonical = pattern._replace(kept=tuple(sorted(pattern.kept)))
        reduced = self._reduce(canonical)
        order = [canonical.kept.index(block) for block in pattern.kept]
        return reduced.permute(*order, -1) if order != sorted(order) else reduced

    def _reduce(self, pattern: Pattern) -> Tensor:
        if pattern not in self.cache:
            dropped = [block for block in range(max(pattern.labels, default=-1) + 1) if block not in pattern.kept]
            if dropped:
                larger = tuple(sorted((*pattern.kept, dropped[-1])))
                self.cache[pattern] = self._reduce(pattern._replace(kept=larger)).mean(larger.index(dropped[-1]))
            else:
                self.cache[pattern] = _diagonal(self.inputs[pattern.parameter], pattern.labels)
        return self.cache[pattern]


def _matmul(tensor: Tensor, matrix: Tensor) -> Tensor:
    """``tensor @ matrix`` as one 2-D product, so that vmap over both makes one batched product of few large blocks."""
    return (tensor.reshape(-1, tensor.shape[-1]) @ matrix).reshape(*tensor.shape[:-1], matrix.shape[-1])


def _mix(sources: list[Tensor], weight: Tensor, shared: Tensor | None) -> Tensor:
    """K tensors ``(*kept, C)`` and a weight ``(K, C_in, D, C_out)`` -> ``(*kept, D, C_out)``, one matrix product."""
    channels = sources[0].shape[-1]
    matrix = weight[:, :channels].flatten(0, 1).flatten(1)
    mixed = _matmul(sources[0] if len(sources) == 1 else torch.cat(sources, -1), matrix)
    mixed = mixed.unflatten(-1, weight.shape[-2:])
    if shared is None:
        return mixed
    return mixed + torch.einsum("kcdo,c->do", weight[:, channels:], shared)


def _diagonal(tensor: Tensor, labels: tuple[int, ...]) -> Tensor:
    """Read the diagonal on which axes of equal label agree: ``(*axes, C) -> (*blocks, C)``."""
    labels_left = list(labels)
    for axis in reversed(range(len(labels))):
        first = labels_left.index(labels_left[axis])
        if first != axis:
            tensor = tensor.diagonal(dim1=first, dim2=axis).movedim(-1, first)
            del labels_left[axis]
    return tensor


def _spread(part: Tensor, target: Pattern, like: Tensor) -> Tensor:
    """Write ``(*kept, C)`` up to a shape that broadcasts to ``(*axes, C)``; zero off the diagonals of the pattern."""
    num_blocks = max(target.labels, default=-1) + 1
    order = sorted(range(len(target.kept)), key=lambda position: target.kept[position])
    part = part.permute(*order, -1)
    for block in range(num_blocks):
        if block not in target.kept:
            part = part.unsqueeze(block)
    for axis, block in enumerate(target.labels):
        if block in target.labels[:axis]:
            first = target.labels.index(block)
            size = like.shape[first]
            part = part.expand(*part.shape[:first], size, *part.shape[first + 1 :])
            part = torch.diag_embed(part.movedim(first, -1), dim1=first, dim2=axis)
    return part


def _key(signature: tuple[str, ...]) -> str:
    return f"({','.join(map(_escape, signature))})"


def _escape(name: str) -> str:
    """Names may hold dots, keys of a ParameterDict may not."""
    return name.replace(".", "/")
