"""Rules of operations that move, cut, join or pick entries without computing with them."""

from math import gcd

from learned_opt.symmetry.atoms import PIECES, Axis, fix, fresh, is_sum, leaves, length, take, unify
from learned_opt.symmetry.calls import (
    PICKED,
    Axes,
    Call,
    Positions,
    Results,
    fix_positions,
)
from learned_opt.symmetry.pointwise import as_list
from learned_opt.symmetry.sums import is_fixed, sum_of, sum_range

NO_DIVISOR = "cut or joined at places with no common divisor"
STEP = "picked with a step"


def view(call: Call) -> Results:
    """Regroup the factors; a cut through the middle of an atom splits it."""
    source = call.arguments["self"]
    rest: Axis = [atom for axis in source.axes for atom in axis]
    axes: Axes = []

    # row-major order: the first axis of the result takes the first factors, and so on
    for size in call.result.shape:
        parts = take(rest, size)
        if parts is None:
            return _fixed_view(call)
        head, rest = parts
        axes.append(head)
    return axes


def _fixed_view(call: Call) -> Results:
    """Fix all axes of a view that cuts across the factors of its argument."""
    source = call.arguments["self"]
    before = tuple(source.value.shape)
    after = tuple(call.result.shape)
    reason = f"reshaped from {before} to {after} across its structure"
    for axis in source.axes:
        fix(axis, reason)
    return [fresh(size, reason) for size in after]


def permute(call: Call) -> Results:
    """Reorder the axes as the dims say."""
    source = call.arguments["self"]
    return [source.axes[dim] for dim in call.arguments["dims"]]


def transpose(call: Call) -> Results:
    """Swap two axes with each other."""
    axes = list(call.arguments["self"].axes)
    first = call.arguments["dim0"]
    second = call.arguments["dim1"]
    axes[first], axes[second] = axes[second], axes[first]
    return axes


def matrix_transpose(call: Call) -> Results:
    """``t``: swap the two axes of a matrix."""
    return list(reversed(call.arguments["self"].axes))


def unsqueeze(call: Call) -> Results:
    """Insert an axis of length 1."""
    axes = list(call.arguments["self"].axes)
    axes.insert(call.arguments["dim"] % (len(axes) + 1), [])
    return axes


def squeeze(call: Call) -> Results:
    """Drop axes of length 1."""
    source = call.arguments["self"]
    rank = len(source.axes)
    dims = call.arguments.get("dim")
    candidates = range(rank) if dims is None else as_list(dims)
    dropped = {dim % rank for dim in candidates if source.value.shape[dim] == 1}
    return [axis for dim, axis in enumerate(source.axes) if dim not in dropped]


def expand(call: Call) -> Results:
    """Repeat: new and broadcast axes hold equal entries, any order will do."""
    source = call.arguments["self"]
    num_new = call.result.ndim - len(source.axes)
    before: Axes = [*([] for _ in range(num_new)), *source.axes]

    axes: Axes = []
    for axis, size in zip(before, call.result.shape, strict=True):
        axes.append(fresh(size) if length(axis) == 1 else axis)
    return axes


def select(call: Call) -> Results:
    """One index of an axis is picked, so the axis is fixed."""
    return _without_axis(call, call.dim())


def unbind(call: Call) -> Results:
    """Every index of an axis becomes a result."""
    axes = _without_axis(call, call.dim(default=0))
    return [axes for _ in call.result]


def _without_axis(call: Call, dim: int) -> Axes:
    source = call.arguments["self"]
    fix(source.axes[dim], PICKED)
    return [*source.axes[:dim], *source.axes[dim + 1 :]]


def in_blocks(axis: Axis, block: int) -> Axis:
    """Cut an axis into fixed blocks of ``block`` indices; returns the axis within a block."""
    parts = take(axis, length(axis) // block)
    # blocks of one index leave nothing to permute within them
    if block == 1 or parts is None:
        fix(axis, NO_DIVISOR)
        return fresh(block, NO_DIVISOR)

    blocks, within = parts
    fix(blocks, PIECES)
    return within


def chunk_axis(axis: Axis, start: int, size: int) -> Axis:
    """Indices start..start+size of an axis: whole blocks of the largest size that fits the cuts.

    A concatenated axis, and one that has no such blocks, is cut into unequal parts instead.
    """
    total = length(axis)
    if size == total:
        return axis
    block = gcd(total, start, size)  # both cuts lie between blocks
    is_plain = len(leaves(axis)) == 1 and not is_fixed(axis)
    if size and (is_sum(axis) or (block == 1 and is_plain)):
        return sum_range(axis, start, size)
    return [*fresh(size // block, PIECES), *in_blocks(axis, block)]


def slice_(call: Call) -> Results:
    """A range of indices of one axis."""
    source = call.arguments["self"]
    dim = call.dim(default=0)
    start = call.arguments.get("start") or 0
    if start < 0:
        start += source.value.shape[dim]
    size = call.result.shape[dim]

    axes = list(source.axes)
    if call.arguments.get("step", 1) != 1:
        fix(axes[dim], STEP)
        axes[dim] = fresh(size, STEP)
    else:
        axes[dim] = chunk_axis(axes[dim], start, size)
    return axes


def split(call: Call) -> Results:
    """Consecutive pieces of one axis; a list of results."""
    source = call.arguments["self"]
    dim = call.dim(default=0)
    start = 0
    pieces = []
    for piece in call.result:
        size = piece.shape[dim]
        axes = list(source.axes)
        axes[dim] = chunk_axis(axes[dim], start, size)
        pieces.append(axes)
        start += size
    return pieces


def cat(call: Call) -> Results:
    """The joined axis is the sum of those of the pieces; each is permuted as before."""
    pieces = [piece for piece in call.arguments["tensors"] if piece.value.numel()]
    dim = call.arguments.get("dim", 0) % call.result.ndim
    axes = list(pieces[0].axes)

    for piece in pieces[1:]:
        for other, axis in enumerate(piece.axes):
            if other != dim:
                unify(axes[other], axis)

    axes[dim] = sum_of([piece.axes[dim] for piece in pieces])
    return axes


def index(call: Call) -> Results:
    """Indexed axes are fixed, the others pass; the axes of the indices replace them or come first.

    An axis indexed by positions on an axis that permutes with it is not fixed: both move together.
    """
    source = call.arguments["self"]
    indices = list(call.arguments["indices"])
    indexed = [dim for dim, value in enumerate(indices) if value is not None]
    fix_positions(source.axes)

    first = indexed[0]
    source_axis = source.axes[first]
    picked = indices[first].axes
    by_position = len(indexed) == 1 and isinstance(picked, Positions)
    if by_position and length(picked.into) == length(source_axis):
        unify(source_axis, picked.into)
        return [*source.axes[:first], *picked, *source.axes[first + 1 :]]

    for dim in indexed:
        fix(source.axes[dim], PICKED)
        fix_positions(indices[dim].axes)
        for axis in indices[dim].axes:
            fix(axis, "used as an index")

    # torch puts the new axes in front where the indexed ones are not neighbours
    kept = [axis for dim, axis in enumerate(source.axes) if dim not in indexed]
    are_neighbours = indexed == list(range(first, indexed[-1] + 1))
    start = first if are_neighbours else 0
    num_new = call.result.ndim - len(kept)
    new = [fresh(size, PICKED) for size in call.result.shape[start : start + num_new]]
    return [*kept[:start], *new, *kept[start:]]


def index_select(call: Call) -> Results:
    """The same as ``index``, along one dim."""
    source = call.arguments["self"]
    indices = [None] * call.dim() + [call.arguments["index"]]
    return index(Call("index", {"self": source, "indices": indices}, call.result))
