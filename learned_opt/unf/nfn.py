"""The layer that UNF generalises, for plain chains of linear or convolutional layers; a baseline.

Legend: n_i units of layer i, F kernel positions, C channels.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer
from learned_opt.unf.coefficients import escape, zero_biases
from learned_opt.unf.fixed import fold, num_folds, unfold
from learned_opt.unf.mixing import gain, mix
from learned_opt.unf.reading import mean_over

RULE = "nfn needs a chain of weights (out, in, *kernel), each with at most one bias (out)"


class Link(NamedTuple):
    """One layer of a chain: its weight, its bias or None, the units that it writes and reads."""

    weight: str
    bias: str | None
    out: str
    inp: str


class NFNLinear(Layer):
    """Neural functional layer in which all units permute, those of input and output too ("NP").

    ``W_i <- W_i A_i + rows_i B_i + columns_i C_i + g D_i`` and
    ``b_i <- rows_i E_i + g F_i + bias``, where ``rows_i`` holds, for each unit that layer i writes,
    its bias and the means of the weights that enter and leave it, ``columns_i`` the same for the
    units that layer i reads, and g the mean of every tensor. Kernel positions are channels.
    On a spec without kernels this is the span of ``UNFLinear``.

    Args:
        spec: permutation spec of a chain: weights ``(out, in, *kernel)``, each reading what the one
            before wrote, with at most one bias (out) each. Kernel axes must be fixed and measured.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: one bias per (output tensor, kernel position, out channel), zero at the start.
        init: as in ``UNFLinear``.

    Raises:
        ValueError: the spec is no chain; says which parameter breaks it.

    Source: Zhou et al. 2023 (arXiv 2302.14040), equations 3 and 4; means instead of sums, as in
    ``UNFLinear``.

    >>> layer = NFNLinear(PermutationSpec({"weight": ("out", "in"), "bias": ("out",)}), 2, 3)
    >>> layer({"weight": torch.zeros(5, 4, 2), "bias": torch.zeros(5, 2)})["bias"].shape
    torch.Size([5, 3])
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
        self.chain = find_chain(spec)
        self.spec = fold_kernels(spec, self.chain)
        self.in_channels = in_channels
        self.out_channels = out_channels
        self.num_folds = num_folds(self.spec)

        # these two names are part of theta: the A_i, and all others
        self.own = nn.ParameterDict()
        self.pooled = nn.ParameterDict()
        for link in self.chain:
            self._draw(link, gain(init))
        self.biases = zero_biases(self.num_folds if bias else {}, out_channels)

    def _draw(self, link: Link, std: float) -> None:
        """Draw the coefficients of one link; fan_in is in_channels x terms of an output."""
        folds = self.num_folds[link.weight]
        rows = sum(self.num_folds[name] for name in self._touching(link.out))
        columns = sum(self.num_folds[name] for name in self._touching(link.inp))
        everything = sum(self.num_folds.values())

        scale = std / (self.in_channels * (folds + rows + columns + everything)) ** 0.5
        self.own[escape(link.weight)] = self._weight(folds, folds, scale)
        for kind, terms in (("rows", rows), ("columns", columns), ("mean", everything)):
            key = escape(f"{link.weight}:{kind}")
            self.pooled[key] = self._weight(terms, folds, scale)

        if link.bias is not None:
            scale = std / (self.in_channels * (rows + everything)) ** 0.5
            for kind, terms in (("rows", rows), ("mean", everything)):
                key = escape(f"{link.bias}:{kind}")
                self.pooled[key] = self._weight(terms, 1, scale)

    @property
    def num_basis(self) -> int:
        """Number of basis maps, those of folded indices included."""
        weights = [*self.own.values(), *self.pooled.values()]
        return sum(weight.shape[0] * weight.shape[2] for weight in weights)

    @override
    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        folded = fold(self.spec, inputs)
        units: dict[str, list[Tensor]] = {}
        for link in self.chain:
            for name in (link.out, link.inp):
                units[name] = self._summary(name, folded)
        means = [mean_over(folded[parameter].flatten(0, -2), 0) for parameter in self.num_folds]

        outputs = {}
        for link in self.chain:
            # (n_i, 1, F C) + (n_{i-1}, F C), then all of (n_i, n_{i-1}, F C)
            pooled = self._pool(link.weight, "rows", units[link.out], shared)[:, None]
            pooled = pooled + self._pool(link.weight, "columns", units[link.inp], shared)
            weight = self.own[escape(link.weight)]
            mixed = mix([folded[link.weight]], weight, shared).flatten(-2)
            outputs[link.weight] = mixed + pooled + self._pool(link.weight, "mean", means, shared)
            if link.bias is not None:
                rows = self._pool(link.bias, "rows", units[link.out], shared)
                outputs[link.bias] = rows + self._pool(link.bias, "mean", means, shared)

        if self.biases:
            outputs = {name: value + self.biases[escape(name)] for name, value in outputs.items()}
        return unfold(self.spec, {name: outputs[name] for name in inputs})

    @override
    def extra_repr(self) -> str:
        return f"{self.in_channels}, {self.out_channels}, num_basis={self.num_basis}"

    def _weight(self, sources: int, targets: int, std: float) -> nn.Parameter:
        drawn = torch.randn(sources, self.in_channels, targets, self.out_channels)
        return nn.Parameter(drawn * std)

    def _pool(
        self, parameter: str, kind: str, sources: list[Tensor], shared: Tensor | None
    ) -> Tensor:
        weight = self.pooled[escape(f"{parameter}:{kind}")]
        return mix(sources, weight, shared).flatten(-2)

    def _touching(self, name: str) -> list[str]:
        """Parameters with an axis of these units."""
        touching = []
        for link in self.chain:
            for parameter in (link.weight, link.bias):
                if parameter is not None and name in self.spec.axes[parameter]:
                    touching.append(parameter)

        return touching

    def _summary(self, name: str, folded: Mapping[str, Tensor]) -> list[Tensor]:
        """For each unit, its bias and the means of the weights that touch it: ``(n, F C)`` each."""
        summary = []
        for parameter in self._touching(name):
            tensor = folded[parameter]
            if tensor.ndim == 3:  # a weight (n_i, n_{i-1}, F C): mean over the other units
                other_axis = 1 - self.spec.axes[parameter].index(name)
                tensor = mean_over(tensor, other_axis)
            summary.append(tensor)

        return summary


def find_chain(spec: PermutationSpec) -> list[Link]:
    """Order the parameters of a spec as a chain of layers.

    Raises:
        ValueError: they are none; names the parameter.

    >>> find_chain(PermutationSpec({"w": ("h", "x"), "b": ("h",), "head": ("y", "h")}))[0]
    Link(weight='w', bias='b', out='h', inp='x')
    """
    weights = {name: axes for name, axes in spec.axes.items() if len(axes) > 1}
    if not weights:
        raise ValueError(f"{RULE}, but the spec has no weight.")

    biases: dict[str, str] = {}
    for parameter, axes in spec.axes.items():
        if len(axes) == 1:
            biases.setdefault(axes[0], parameter)  # the first; a second one is refused below

    chain: list[Link] = []
    used: set[str] = set()  # names of all units so far
    for weight, axes in weights.items():
        link = Link(weight, biases.get(axes[0]), axes[0], axes[1])
        reads_the_last = not chain or link.inp == chain[-1].out
        if link.out in used or link.out == link.inp or not reads_the_last:
            raise ValueError(f"{RULE}, but {weight!r} has the axes {axes}.")
        chain.append(link)
        used |= {link.out, link.inp}

    # scales and second biases belong to no link
    known = {parameter for link in chain for parameter in (link.weight, link.bias)}
    for parameter, axes in spec.axes.items():
        if parameter not in known:
            raise ValueError(f"{RULE}, but {parameter!r} has the axes {axes}.")
    return chain


def fold_kernels(spec: PermutationSpec, chain: list[Link]) -> PermutationSpec:
    """The spec whose kernel axes are read as channels."""
    kernels: set[str] = set()
    for link in chain:
        kernels.update(spec.axes[link.weight][2:])

    return replace(spec, folded=kernels)
