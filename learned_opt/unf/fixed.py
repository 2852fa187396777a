"""Fixed axes, whose indices mean something: pixels, classes, kernel positions, gates.

``permute`` (the paper's choice): each is a permutation of its own. Fewer parameters, but one
position of a kernel cannot be told from another. ``encode``: the same, and a learned vector for
each index tells them apart. ``fold``: each index of a short fixed axis is a channel of its own, so
that no symmetry is assumed that is not there.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn
from typing_extensions import override

from learned_opt.symmetry.spec import PermutationSpec

FIXED_AXES = ("permute", "encode", "fold")
# kernels up to 7x7, colours, gates; pixels, classes and vocabularies would make too many channels
MAX_FOLDED = 7
ENCODING_STD = 0.17  # of the authors' code


def fold_short(spec: PermutationSpec) -> PermutationSpec:
    """The spec whose fixed axes of at most ``MAX_FOLDED`` indices are read as channels.

    Raises:
        ValueError: the lengths of the fixed axes are not known.

    >>> axes = {"weight": ("out", "in", "row"), "head": ("class", "out")}
    >>> sizes = {"row": 3, "class": 10}
    >>> sorted(fold_short(PermutationSpec(axes, {"row", "class"}, fixed_sizes=sizes)).folded)
    ['row']
    """
    _check_measured(spec)
    short = {name for name, size in spec.fixed_sizes.items() if 1 <= size <= MAX_FOLDED}
    return replace(spec, folded=short)


def without_folded(spec: PermutationSpec) -> PermutationSpec:
    """The axes that are left when the folded ones are channels."""
    axes = {}
    for parameter, names in spec.axes.items():
        axes[parameter] = tuple(name for name in names if name not in spec.folded)
    return PermutationSpec(axes, frozenset(spec.fixed) - frozenset(spec.folded))


def num_folds(spec: PermutationSpec) -> dict[str, int]:
    """How many indices of folded axes each parameter has, 1 where none are folded."""
    folds = {}
    for parameter, names in spec.axes.items():
        folds[parameter] = prod(spec.fixed_sizes[name] for name in names if name in spec.folded)
    return folds


def fold(spec: PermutationSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move folded axes into the channels.

    Args:
        spec: permutation spec; its ``folded`` names say which axes move.
        tensors: ``name -> Tensor[*shape, C]``.

    Returns:
        dict[str, Tensor]: ``name -> Tensor[*axes left, F C]``, F the number of folded indices.
    """
    if not spec.folded:
        return dict(tensors)

    folded = {}
    for parameter, names in spec.axes.items():
        order, num_left = _order(spec, names)
        folded[parameter] = tensors[parameter].permute(*order, len(names)).flatten(num_left)
    return folded


def unfold(spec: PermutationSpec, folded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Move folded axes back out of the channels: the inverse of ``fold``."""
    if not spec.folded:
        return dict(folded)

    tensors = {}
    for parameter, names in spec.axes.items():
        order, num_left = _order(spec, names)
        sizes = [spec.fixed_sizes[names[axis]] for axis in order[num_left:]]
        channels = folded[parameter].shape[-1] // prod(sizes)
        split = folded[parameter].unflatten(-1, (*sizes, channels))  # (*axes left, *folded axes, C)

        back = [order.index(axis) for axis in range(len(names))]
        tensors[parameter] = split.permute(*back, len(names))
    return tensors


def _order(spec: PermutationSpec, names: tuple[str, ...]) -> tuple[list[int], int]:
    """Axes with the folded ones last, and how many come before those."""
    left = [axis for axis, name in enumerate(names) if name not in spec.folded]

    last = [axis for axis, name in enumerate(names) if name in spec.folded]
    return left + last, len(left)


class PositionalEncoding(nn.Module):
    """Adds a learned vector for each index of each fixed name, the same for all of its tensors.

    Args:
        spec: permutation spec; it must know the lengths of its fixed axes.
        channels: channels of the tensors.

    Raises:
        ValueError: the lengths of the fixed axes are not known.

    Source: Zhou et al. 2024 (arXiv 2402.05232) propose encodings; the authors' code has one table
    per kernel over all its positions, this is one per axis.
    """

    def __init__(self, spec: PermutationSpec, channels: int) -> None:
        super().__init__()
        _check_measured(spec)
        self.spec = spec
        self.names = [name for name, size in spec.fixed_sizes.items() if size > 1]

        self.tables = nn.ParameterList()
        for name in self.names:
            self.tables.append(torch.randn(spec.fixed_sizes[name], channels) * ENCODING_STD)

    @override
    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        outputs = dict(inputs)

        for parameter, names in self.spec.axes.items():
            for axis, name in enumerate(names):
                if name in self.names:
                    table = self.tables[self.names.index(name)]  # (n, C)
                    shape = [1] * len(names)
                    shape[axis] = -1
                    encoding = table.reshape(*shape, table.shape[-1])
                    outputs[parameter] = outputs[parameter] + encoding
        return outputs


def _check_measured(spec: PermutationSpec) -> None:
    missing = sorted(set(spec.fixed) - set(spec.fixed_sizes))
    if missing:
        raise ValueError(
            f"the lengths of the fixed axes {missing} are not known; call spec.measure(params) "
            "first."
        )
