"""Reading tensors down to matched blocks of axes, and writing them up again; see ``plan``.

Legend: C channels, the last axis; blocks are axes, or sets of axes on whose diagonal a tensor is
read.
"""

from collections.abc import Mapping, Sequence
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.unf.plan import Pattern


def mean_over(tensor: Tensor, axis: int) -> Tensor:
    """The mean over an axis; 0 where it has no entries, so that an empty tensor spoils no other.

    >>> mean_over(torch.ones(0, 2), 0)
    tensor([0., 0.])
    """
    return tensor.mean(axis) if tensor.shape[axis] else tensor.sum(axis)


class Summary(NamedTuple):
    """What a layer reads of a tensor ``(*shape, C)`` without diagonals that was never written.

    Args:
        dots: the channels of each entry times Q columns that the layer has chosen,
            ``(*shape, Q)``.
        means: over each axis, ``(*other axes, C)``.
    """

    dots: Tensor
    means: tuple[Tensor, ...]


class Reducer:
    """Reads patterns out of tensors.

    Every distinct reduction is computed once, from the next larger one.

    Args:
        inputs: ``name -> Tensor[*shape, C]``, or what is known of it.
    """

    def __init__(self, inputs: Mapping[str, Tensor | Summary]) -> None:
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

    def is_unwritten(self, pattern: Pattern) -> bool:
        """Whether a pattern is all of a tensor of which there is a summary alone."""
        is_whole = len(pattern.kept) == len(_blocks(pattern))
        return is_whole and isinstance(self.inputs[pattern.parameter], Summary)

    def dots(self, pattern: Pattern) -> Tensor:
        """The dots of an unwritten tensor, ``(*kept, Q)``."""
        summary = self.inputs[pattern.parameter]
        assert isinstance(summary, Summary)
        return summary.dots.permute(*pattern.kept, -1)

    def _reduce(self, pattern: Pattern) -> Tensor:
        if pattern not in self.cache:
            self.cache[pattern] = self._read(pattern)
        return self.cache[pattern]

    def _read(self, pattern: Pattern) -> Tensor:
        dropped = [block for block in _blocks(pattern) if block not in pattern.kept]
        whole = self.inputs[pattern.parameter]
        if isinstance(whole, Summary) and len(dropped) == 1:
            return whole.means[dropped[0]]
        if dropped:
            larger = tuple(sorted((*pattern.kept, dropped[-1])))
            source = self._reduce(pattern._replace(kept=larger))
            return mean_over(source, larger.index(dropped[-1]))

        assert isinstance(whole, Tensor)  # what is unwritten is asked for its dots
        return _diagonal(whole, pattern.labels)


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


def spread(part: Tensor, target: Pattern, like: Tensor | Summary) -> Tensor:
    """Write blocks up to the axes of a tensor; zero off the diagonals of the pattern.

    Args:
        part: ``(*kept, C)``.
        target: which block each axis belongs to.
        like: ``(*axes, ...)``, whose sizes are taken where a diagonal needs one; a summary has
            none.

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
            assert isinstance(like, Tensor)
            size = like.shape[first]
            part = part.expand(*part.shape[:first], size, *part.shape[first + 1 :])
            part = torch.diag_embed(part.movedim(first, -1), dim1=first, dim2=axis)
    return part


def total(terms: Sequence[Tensor]) -> Tensor:
    """The sum of terms that broadcast to one shape.

    Small ones come first, so that few sums are taken at full size.
    """
    return reduce(torch.add, sorted(terms, key=Tensor.numel))
