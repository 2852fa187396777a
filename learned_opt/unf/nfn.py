"""The layer that UNF generalises, for plain chains of linear or convolutional layers; a baseline.

Legend: n_i units of layer i, F kernel positions, C channels.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor, nn

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer
from learned_opt.unf.fixed import fold, num_folds, unfold
from learned_opt.unf.layers import escape
from learned_opt.unf.mixing import gain, mix


class Link(NamedTuple):
    """One layer of a chain: its weight, its bias or None, and the names of the units that it writes and reads."""

    weight: str
    bias: str | None
    out: str
    inp: str


class NFNLinear(Layer):
    """Neural functional layer in which all units permute, those of input and output too ("NP").

    ``W_i <- W_i A_i + rows_i B_i + columns_i C_i + g D_i`` and ``b_i <- rows_i E_i + g F_i + bias``, where ``rows_i``
    holds, for each unit that layer i writes, its bias and the means of the weights that enter and leave it,
    ``columns_i`` the same for the units that layer i reads, and g the mean of every tensor. Kernel positions are
    channels.
    On a spec without kernels this is the span of ``UNFLinear``.

    Args:
        spec: permutation spec of a chain: weights (out, in, *kernel), each reading what the one before wrote, with at
            most one bias (out) each. Kernel axes must be fixed and measured.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: one bias per (output tensor, kernel position, out channel), zero at the start.
        init: as in ``UNFLinear``.

    Raises:
        ValueError: the spec is no chain; says which parameter breaks it.

    Source: Zhou et al. 2023 (arXiv 2302.14040), equations 3 and 4; means instead of sums, as in ``UNFLinear``.
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
        self.in_channels, self.out_channels = in_channels, out_channels
        self.num_folds = num_folds(self.spec)
        self.own, self.pooled = nn.ParameterDict(), nn.ParameterDict()
        everything = sum(self.num_folds.values())
        for link in self.chain:
            folds = self.num_folds[link.weight]
            rows, columns = (
                sum(self.num_folds[p] for p in self._touching(name))
                for name in (link.out, link.inp)
            )
            std = gain(init) / (in_channels * (folds + rows + columns + everything)) ** 0.5
            self.own[escape(link.weight)] = self._weight(folds, folds, std)
            for kind, terms in (("rows", rows), ("columns", columns), ("mean", everything)):
                self.pooled[escape(f"{link.weight}:{kind}")] = self._weight(terms, folds, std)
            if link.bias is not None:
                std = gain(init) / (in_channels * (rows + everything)) ** 0.5
                for kind, terms in (("rows", rows), ("mean", everything)):
                    self.pooled[escape(f"{link.bias}:{kind}")] = self._weight(terms, 1, std)
        sizes = {
            escape(name): folds * out_channels for name, folds in self.num_folds.items() if bias
        }
        self.biases = nn.ParameterDict(
            {name: nn.Parameter(torch.zeros(size)) for name, size in sizes.items()}
        )

    @property
    def num_basis(self) -> int:
        """Number of basis maps."""
        return sum(w.shape[0] * w.shape[2] for w in (*self.own.values(), *self.pooled.values()))

    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Apply the map; shapes as in ``UNFLinear``."""
        folded = fold(self.spec, inputs)
        units = {
            name: self._summary(name, folded)
            for link in self.chain
            for name in (link.out, link.inp)
        }
        means = [folded[p].flatten(0, -2).mean(0) for p in self.num_folds]
        outputs = {}
        for link in self.chain:
            pooled = self._pool(link.weight, "rows", units[link.out], shared)[:, None]
            pooled = pooled + self._pool(link.weight, "columns", units[link.inp], shared)
            own = mix([folded[link.weight]], self.own[escape(link.weight)], shared).flatten(-2)
            outputs[link.weight] = own + pooled + self._pool(link.weight, "mean", means, shared)
            if link.bias is not None:
                rows = self._pool(link.bias, "rows", units[link.out], shared)
                outputs[link.bias] = rows + self._pool(link.bias, "mean", means, shared)
        if self.biases:
            outputs = {name: value + self.biases[escape(name)] for name, value in outputs.items()}
        return unfold(self.spec, {name: outputs[name] for name in inputs})

    def extra_repr(self) -> str:
        """Channels and number of basis maps, for ``print``."""
        return f"{self.in_channels}, {self.out_channels}, num_basis={self.num_basis}"

    def _weight(self, sources: int, targets: int, std: float) -> nn.Parameter:
        return nn.Parameter(
            torch.randn(sources, self.in_channels, targets, self.out_channels) * std
        )

    def _pool(
        self, parameter: str, kind: str, sources: list[Tensor], shared: Tensor | None
    ) -> Tensor:
        return mix(sources, self.pooled[escape(f"{parameter}:{kind}")], shared).flatten(-2)

    def _touching(self, name: str) -> list[str]:
        """Parameters with an axis of these units."""
        return [
            p
            for link in self.chain
            for p in (link.weight, link.bias)
            if p and name in self.spec.axes[p]
        ]

    def _summary(self, name: str, folded: Mapping[str, Tensor]) -> list[Tensor]:
        """For each unit, its bias and the means of the weights that touch it: tensors ``(n, F C)``."""
        return [
            folded[p].mean(1 - self.spec.axes[p].index(name)) if folded[p].ndim == 3 else folded[p]
            for p in self._touching(name)
        ]


def find_chain(spec: PermutationSpec) -> list[Link]:
    """Order the parameters of a spec as a chain of layers.

    Raises:
        ValueError: they are none; names the parameter.
    """
    weights = {p: names for p, names in spec.axes.items() if len(names) > 1}
    biases = {names[0]: p for p, names in reversed([*spec.axes.items()]) if len(names) == 1}
    rule = "nfn needs a chain of weights (out, in, *kernel), each with at most one bias (out)"
    if not weights:
        raise ValueError(f"{rule}, but the spec has no weight.")
    chain = [
        Link(weight, biases.get(names[0]), names[0], names[1]) for weight, names in weights.items()
    ]
    for before, link in zip([None, *chain], chain, strict=False):
        names = [name for other in chain[: chain.index(link)] for name in (other.out, other.inp)]
        if link.out in (*names, link.inp) or (before and link.inp != before.out):
            raise ValueError(f"{rule}, but {link.weight!r} has the axes {weights[link.weight]}.")
    known = {p for link in chain for p in (link.weight, link.bias)}
    for parameter in spec.axes:
        if parameter not in known:
            raise ValueError(f"{rule}, but {parameter!r} has the axes {spec.axes[parameter]}.")
    return chain


def fold_kernels(spec: PermutationSpec, chain: list[Link]) -> PermutationSpec:
    """The spec whose kernel axes are read as channels."""
    kernels = {name for link in chain for name in spec.axes[link.weight][2:]}
    return replace(spec, folded=kernels)
