"""An equivariant layer whose coefficients belong to types of basis maps.

So one theta runs on every spec.

Legend: K sources, D targets of a block; C_in / C_out channels; E entries of all cells of a block,
side by side.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer
from learned_opt.unf.cells import Block, Cell, make_blocks, num_terms
from learned_opt.unf.kind_bias import KindBias
from learned_opt.unf.mixing import gain, mix
from learned_opt.unf.plan import Pattern
from learned_opt.unf.reading import Reducer, spread, total
from learned_opt.unf.types import TENSOR_TYPES, TYPES, tensor_types

# types that arrive at a weight of a hidden layer; theta must not depend on the spec it is drawn for
TYPICAL_TERMS = 16


class TypeTied(Layer):
    """``T(W)[o] = bias + sum over cells of lambda_type (mean of the sources)``, see ``types``.

    Sources of one type are averaged before the channels are mixed, so that neither cost nor scale
    grows with the number of pairs of tensors. Theta is ``(len(TYPES), C_in, C_out)`` and a bias for
    each type of tensor, whatever the spec.

    Args:
        spec: permutation spec of inputs and outputs; fixed names count as permutations of their
            own.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: one bias per (type of output tensor, out channel), zero at the start.
        init: as in ``UNFLinear``, with fan_in = in_channels x ``TYPICAL_TERMS``.

    Raises:
        ValueError: the spec has folded axes, whose number would enter the shape of theta.

    >>> layer = TypeTied(PermutationSpec({"weight": ("hidden", "in")}), 2, 1)
    >>> moved = layer.rebind(PermutationSpec({"kernel": ("out", "in", "row", "column")}))
    >>> moved({"kernel": torch.zeros(4, 3, 5, 5, 2)})["kernel"].shape
    torch.Size([4, 3, 5, 5, 1])
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
        std = gain(init) * (in_channels * TYPICAL_TERMS) ** -0.5
        self.table = nn.Parameter(torch.randn(len(TYPES), in_channels, out_channels) * std)
        self.bias = nn.Parameter(torch.zeros(len(TENSOR_TYPES), out_channels)) if bias else None
        self._plan(spec)

    @property
    @override
    def fits_every_spec(self) -> bool:
        return True

    @override
    def rebind(self, spec: PermutationSpec) -> Self:
        other = copy(self)
        other._plan(spec)
        return other

    @override
    def simplified(self) -> Layer:
        if bool(self.table.any()):
            return self
        if self.bias is None:
            bias = self.table.new_zeros(len(TENSOR_TYPES), self.table.shape[2])
        else:
            bias = self.bias
        return KindBias(bias, self.types, self.num_terms)

    def _plan(self, spec: PermutationSpec) -> None:
        if spec.folded:
            raise ValueError(
                "TypeTied cannot read fixed axes as channels, but "
                f"{sorted(spec.folded)} are folded."
            )
        self.spec = spec
        self.blocks = make_blocks(spec)
        self.types = tensor_types(spec)
        self.num_terms = num_terms(spec)

        self.rows: list[int] = []  # of the table, for all blocks in turn
        for block in self.blocks:
            for source_rows in block.rows:
                self.rows.extend(source_rows)

    @override
    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        read = Reducer(inputs)

        parts: dict[Pattern, list[Tensor]] = defaultdict(list)
        for block, weight in zip(self.blocks, self._weights(), strict=True):
            for cells in _batches(block):
                for pattern, part in _apply(cells, read, weight, shared):
                    parts[pattern].append(part)

        terms: dict[str, list[Tensor]] = {}
        for name, kind in self.types.items():
            terms[name] = [] if self.bias is None else [self.bias[kind]]
        for pattern, written in parts.items():
            # terms that are written alike are added before they are spread out
            part = total(written)
            terms[pattern.parameter].append(spread(part, pattern, inputs[pattern.parameter]))
        return {name: total(tensor_terms) for name, tensor_terms in terms.items()}

    def _weights(self) -> Iterator[Tensor]:
        """``(K, C_in, D, C_out)`` of each block."""
        rows = self.table.index_select(0, torch.tensor(self.rows, device=self.table.device))
        sizes = [len(block.rows) * len(block.rows[0]) for block in self.blocks]

        for block, block_rows in zip(self.blocks, rows.split(sizes), strict=True):
            yield block_rows.unflatten(0, (len(block.rows), -1)).transpose(1, 2)


def _batches(block: Block) -> list[tuple[Cell, ...]]:
    """The cells that are computed together: all of them, or each by itself where they are large."""
    return [block.cells] if block.small else [(cell,) for cell in block.cells]


def _apply(
    cells: tuple[Cell, ...], read: Reducer, weight: Tensor, shared: Tensor | None
) -> Iterator[tuple[Pattern, Tensor]]:
    """One matrix product for all cells.

    Yields:
        tuple[Pattern, Tensor]: each pattern that is written and what arrives there,
        ``(*kept, C_out)``.
    """
    sources = []
    for cell in cells:
        sources.append([_mean(patterns, read) for patterns in cell.sources])  # K of (*kept, C)

    shapes = [means[0].shape[:-1] for means in sources]
    flat_sources = []
    for means in sources:
        flat_sources.append([tensor.reshape(-1, tensor.shape[-1]) for tensor in means])
    if len(cells) == 1:
        rows = flat_sources[0]
    else:
        rows = [torch.cat(entries) for entries in zip(*flat_sources, strict=True)]
    sizes = [shape.numel() for shape in shapes]
    parts = mix(rows, weight, shared).split(sizes)  # (E, D, C_out) in parts

    for cell, shape, part in zip(cells, shapes, parts, strict=True):
        for patterns, column in zip(cell.targets, part.unbind(-2), strict=True):
            written = column.reshape(*shape, column.shape[-1])
            for pattern in patterns:
                yield pattern, written


def _mean(patterns: tuple[Pattern, ...], read: Reducer) -> Tensor:
    tensors = [read(pattern) for pattern in patterns]
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(0)
