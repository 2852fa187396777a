"""An equivariant layer whose coefficients belong to types of basis maps, so that one theta runs on every spec.

Legend: K sources, D targets of a block; C_in / C_out channels; E entries of all cells of a block, side by side.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from copy import copy
from typing import Self

import torch
from torch import Tensor, nn

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.base import Layer
from learned_opt.unf.cells import Cell, make_blocks, num_terms
from learned_opt.unf.mixing import gain, mix
from learned_opt.unf.plan import Pattern
from learned_opt.unf.reading import Reducer, spread, total
from learned_opt.unf.types import TENSOR_TYPES, TYPES, tensor_types

TYPICAL_TERMS = 16  # types that arrive at a weight of a hidden layer; theta must not depend on the spec it is drawn for


class TypeTied(Layer):
    """``T(W)[o] = bias + sum over cells of lambda_type (mean of the sources)``, see ``types``.

    Sources of one type are averaged before the channels are mixed, so that neither cost nor scale grows with the number
    of pairs of tensors. Theta is ``(len(TYPES), C_in, C_out)`` and a bias for each type of tensor, whatever the spec.

    Args:
        spec: permutation spec of inputs and outputs; fixed names count as permutations of their own.
        in_channels: channels of the input, shared channels included.
        out_channels: channels of the output.
        bias: one bias per (type of output tensor, out channel), zero at the start.
        init: as in ``UNFLinear``, with fan_in = in_channels x ``TYPICAL_TERMS``.

    Raises:
        ValueError: the spec has folded axes, whose number would enter the shape of theta.
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
    def fits_every_spec(self) -> bool:
        """Types do not depend on the spec."""
        return True

    def rebind(self, spec: PermutationSpec) -> Self:
        """See ``Layer.rebind``."""
        other = copy(self)
        other._plan(spec)
        return other

    def _plan(self, spec: PermutationSpec) -> None:
        if spec.folded:
            raise ValueError(
                f"tie=type cannot read fixed axes as channels, but {sorted(spec.folded)} are folded."
            )
        self.spec = spec
        self.blocks, self.types, self.num_terms = (
            make_blocks(spec),
            tensor_types(spec),
            num_terms(spec),
        )
        self.rows = [row for block in self.blocks for sources in block.rows for row in sources]

    def forward(
        self, inputs: Mapping[str, Tensor], shared: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Apply the map; shapes as in ``UNFLinear``."""
        read = Reducer(inputs)
        parts: dict[Pattern, list[Tensor]] = defaultdict(list)
        for block, weight in zip(self.blocks, self._weights(), strict=True):
            for cells in [block.cells] if block.small else [(cell,) for cell in block.cells]:
                for pattern, part in _apply(cells, read, weight, shared):
                    parts[pattern].append(part)
        terms = {
            name: [] if self.bias is None else [self.bias[kind]]
            for name, kind in self.types.items()
        }
        for pattern, own in parts.items():  # what is written alike is added before it is spread out
            terms[pattern.parameter].append(spread(total(own), pattern, inputs[pattern.parameter]))
        return {name: total(own) for name, own in terms.items()}

    def _weights(self) -> Iterator[Tensor]:
        """``(K, C_in, D, C_out)`` of each block."""
        rows = self.table.index_select(0, torch.tensor(self.rows, device=self.table.device))
        sizes = [len(block.rows) * len(block.rows[0]) for block in self.blocks]
        for block, own in zip(self.blocks, rows.split(sizes), strict=True):
            yield own.unflatten(0, (len(block.rows), -1)).transpose(1, 2)


def _apply(
    cells: tuple[Cell, ...], read: Reducer, weight: Tensor, shared: Tensor | None
) -> Iterator[tuple[Pattern, Tensor]]:
    """One matrix product for all cells; yields each pattern and what arrives there, ``(*kept, C_out)``."""
    sources = [
        [_mean([read(pattern) for pattern in patterns]) for patterns in cell.sources]
        for cell in cells
    ]
    shapes = [own[0].shape[:-1] for own in sources]
    flat = [[tensor.reshape(-1, tensor.shape[-1]) for tensor in own] for own in sources]
    rows = flat[0] if len(cells) == 1 else [torch.cat(column) for column in zip(*flat, strict=True)]
    parts = mix(rows, weight, shared).split([shape.numel() for shape in shapes])  # (E, D, C_out)
    for cell, shape, part in zip(cells, shapes, parts, strict=True):
        for patterns, own in zip(cell.targets, part.unbind(-2), strict=True):
            written = own.reshape(*shape, own.shape[-1])
            yield from ((pattern, written) for pattern in patterns)


def _mean(tensors: list[Tensor]) -> Tensor:
    return tensors[0] if len(tensors) == 1 else torch.stack(tensors).mean(0)
