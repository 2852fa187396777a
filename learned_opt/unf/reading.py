"""Reading tensors down to matched blocks of axes, and writing them up again; see ``plan``.

Legend: C channels, the last axis; blocks are axes, or sets of axes on whose diagonal a tensor is
read.
"""

from collections.abc import Mapping, Sequence
from functools import reduce

import torch
from torch import Tensor

from learned_opt.unf.plan import Pattern


def mean_over(tensor: Tensor, axis: int) -> Tensor:
    """The mean over an axis; 0 where it has no entries, so that an empty tensor spoils no other.

    >>> mean_over(torch.ones(0, 2), 0)
    tensor([0., 0.])
    """
    return tensor.mean(axis) if tensor.shape[axis] else tensor.sum(axis)


class Reducer:
    """Reads patterns out of tensors.

    Every distinct reduction is computed once, from the next larger one.

    Args:
        inputs: ``name -> Tensor[*shape, C]``.
    """

    def __init__(self, inputs: Mapping[str, Tensor]) -> None:
        self.inputs = inputs
        self.cache: dict[Pattern, Tensor] = {}

    def __call__(self, pattern: Pattern) -> Tensor:
        """The input averaged over the blocks that are not kept.

        Returns:
            Tensor: ``(*kept, C)``, kept blocks in the order of the pattern.
        """
        canonical = pattern._replace(kept=tuple(sorted(pattern.kept)))
        reduced = self._reduce(canonical)
        order = [canonical.kept.index(block) for block in pattern.kept]
        return reduced.permute(*order, -1) if order != sorted(order) else reduced

    def _reduce(self, pattern: Pattern) -> Tensor:
        if pattern not in self.cache:
            dropped = [block for block in _blocks(pattern) if block not in pattern.kept]
            if dropped:
                larger = tuple(sorted((*pattern.kept, dropped[-1])))
                source = self._reduce(pattern._replace(kept=larger))
                self.cache[pattern] = mean_over(source, larger.index(dropped[-1]))
            else:
                self.cache[pattern] = _diagonal(self.inputs[pattern.parameter], pattern.labels)
        return self.cache[pattern]


def _blocks(pattern: Pattern) -> range:
    return range(max(pattern.labels, default=-1) + 1)


def _diagonal(tensor: Tensor, labels: tuple[int, ...]) -> Tensor:
    """Read the diagonal on which axes of equal label agree: ``(*axes, C) -> (*blocks, C)``."""
    labels_left = list(labels)

    for axis in reversed(range(len(labels))):
        first = labels_left.index(labels_left[axis])
        if first != axis:
            tensor = tensor.diagonal(dim1=first, dim2=axis).movedim(-1, first)
            del labels_left[axis]

    return tensor


def spread(part: Tensor, target: Pattern, like: Tensor) -> Tensor:
    """Write blocks up to the axes of a tensor; zero off the diagonals of the pattern.

    Args:
        part: ``(*kept, C)``.
        target: which block each axis belongs to.
        like: ``(*axes, ...)``, whose sizes are taken where a diagonal needs one.

    Returns:
        Tensor: broadcasts to ``(*axes, C)``.
    """
    order = sorted(range(len(target.kept)), key=lambda position: target.kept[position])
    part = part.permute(*order, -1)
    for block in _blocks(target):
        if block not in target.kept:
            part = part.unsqueeze(block)  # (*blocks, C), of length 1 where nothing arrives

    for axis, block in enumerate(target.labels):
        if block in target.labels[:axis]:
            first = target.labels.index(block)
            size = like.shape[first]
            part = part.expand(*part.shape[:first], size, *part.shape[first + 1 :])
            part = torch.diag_embed(part.movedim(first, -1), dim1=first, dim2=axis)
    return part


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of terms that broadcast to one shape.

    Small ones come first, so that few sums are taken at full size.
    """
    return reduce(torch.add, sorted(terms, key=Tensor.numel))
