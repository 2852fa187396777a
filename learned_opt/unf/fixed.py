"""What a functional makes of fixed axes, whose indices mean something: pixels, classes, kernel positions, gates.

``permute`` (the paper's choice): each is a permutation of its own. Fewer parameters, but one position of a kernel
cannot be told from another. ``encode``: the same, and a learned vector for each index tells them apart.
``fold``: each index of a short fixed axis is a channel of its own, so that no symmetry is assumed that is not there.
"""

from collections.abc import Mapping
from dataclasses import replace
from math import prod

import torch
from torch import Tensor, nn

from learned_opt.symmetry.spec import PermutationSpec

FIXED_AXES = ("permute", "encode", "fold")
MAX_FOLDED = 7  # kernels up to 7x7, colours, gates; pixels, classes and vocabularies would make too many channels
ENCODING_STD = 0.17  # of the authors' code


def fold_short(spec: PermutationSpec) -> PermutationSpec:
    """The spec whose fixed axes of at most ``MAX_FOLDED`` indices are read as channels.

    Raises:
        ValueError: the lengths of the fixed axes are not known.
    """
    _check_measured(spec)
    return replace(
        spec, folded={name for name, size in spec.fixed_sizes.items() if size <= MAX_FOLDED}
    )


def without_folded(spec: PermutationSpec) -> PermutationSpec:
    """The axes that are left when the folded ones are channels."""
    axes = {
        p: tuple(name for name in names if name not in spec.folded)
        for p, names in spec.axes.items()
    }
    return PermutationSpec(axes, frozenset(spec.fixed) - frozenset(spec.folded))


def num_folds(spec: PermutationSpec) -> dict[str, int]:
    """How many indices of folded axes each parameter has, 1 where none are folded."""
    return {
        p: prod(spec.fixed_sizes[name] for name in names if name in spec.folded)
        for p, names in spec.axes.items()
    }


def fold(spec: PermutationSpec, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """``name -> Tensor[*shape, C]`` to ``Tensor[*axes left, F C]``, F the number of folded indices."""
    if not spec.folded:
        return dict(tensors)
    folded = {}
    for parameter, names in spec.axes.items():
        order, left = _order(spec, names)
        folded[parameter] = tensors[parameter].permute(*order, len(names)).flatten(left)
    return folded


def unfold(spec: PermutationSpec, folded: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of ``fold``."""
    if not spec.folded:
        return dict(folded)
    tensors = {}
    for parameter, names in spec.axes.items():
        order, left = _order(spec, names)
        sizes = [spec.fixed_sizes[names[axis]] for axis in order[left:]]
        split = folded[parameter].unflatten(-1, (*sizes, -1))
        back = [order.index(axis) for axis in range(len(names))]
        tensors[parameter] = split.permute(*back, len(names))
    return tensors


def _order(spec: PermutationSpec, names: tuple[str, ...]) -> tuple[list[int], int]:
    """Axes with the folded ones last, and how many come before those."""
    left = [axis for axis, name in enumerate(names) if name not in spec.folded]
    return [*left, *(axis for axis in range(len(names)) if axis not in left)], len(left)


class PositionalEncoding(nn.Module):
    """Adds a learned vector for each index of each fixed name, the same for all tensors that have the name.

    Args:
        spec: permutation spec; it must know the lengths of its fixed axes.
        channels: channels of the tensors.

    Raises:
        ValueError: the lengths of the fixed axes are not known.

    Source: Zhou et al. 2024 (arXiv 2402.05232) propose encodings; the authors' code has one table per kernel over
        all its positions, this is one per axis.
    """

    def __init__(self, spec: PermutationSpec, channels: int) -> None:
        super().__init__()
        _check_measured(spec)
        self.spec = spec
        self.names = [name for name, size in spec.fixed_sizes.items() if size > 1]
        self.tables = nn.ParameterList(
            torch.randn(spec.fixed_sizes[name], channels) * ENCODING_STD for name in self.names
        )

    def forward(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """``name -> Tensor[*shape, C]`` of the same shapes."""
        outputs = dict(inputs)
        for parameter, names in self.spec.axes.items():
            for axis, name in enumerate(names):
                if name in self.names:
                    table = self.tables[self.names.index(name)]
                    shape = [-1 if other == axis else 1 for other in range(len(names))]
                    outputs[parameter] = outputs[parameter] + table.reshape(*shape, table.shape[-1])
        return outputs


def _check_measured(spec: PermutationSpec) -> None:
    missing = sorted(set(spec.fixed) - set(spec.fixed_sizes))
    if missing:
        raise ValueError(
            f"the lengths of the fixed axes {missing} are not known; call spec.measure(params) first."
        )
