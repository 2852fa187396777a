"""Rules of operations that move, cut, join or pick entries without computing with them."""

from math import gcd

from learned_opt.symmetry.atoms import Axis, fix, length, take, unify
from learned_opt.symmetry.calls import (
    PICKED,
    PIECES,
    Axes,
    Call,
    Positions,
    Results,
    fix_positions,
    fresh,
)


def view(call: Call) -> Results:
    """Regroup the factors; a cut through the middle of an atom splits it."""
    source = call.arguments["self"]
    rest: Axis = [atom for axis in source.axes for atom in axis]
    axes: Axes = []
    for size in call.result.shape:
        parts = take(rest, size)
        if parts is None:
            reason = f"reshaped from {tuple(source.value.shape)} to {tuple(call.result.shape)} across its structure"
            for axis in source.axes:
                fix(axis, reason)
            return [fresh(s, reason) for s in call.result.shape]
        head, rest = parts
        axes.append(head)
    return axes


def permute(call: Call) -> Results:
    """Reorder the axes."""
    source = call.arguments["self"]
    return [source.axes[d] for d in call.arguments["dims"]]


def transpose(call: Call) -> Results:
    """Swap two axes."""
    axes = list(call.arguments["self"].axes)
    a, b = call.arguments["dim0"], call.arguments["dim1"]
    axes[a], axes[b] = axes[b], axes[a]
    return axes


def matrix_transpose(call: Call) -> Results:
    """``t``."""
    return list(reversed(call.arguments["self"].axes))


def unsqueeze(call: Call) -> Results:
    """Insert an axis of length 1."""
    axes = list(call.arguments["self"].axes)
    axes.insert(call.arguments["dim"] % (len(axes) + 1), [])
    return axes


def squeeze(call: Call) -> Results:
    """Drop axes of length 1."""
    source, dims = call.arguments["self"], call.arguments.get("dim")
    rank = len(source.axes)
    dims = range(rank) if dims is None else [dims] if isinstance(dims, int) else dims
    dropped = {d % rank for d in dims if source.value.shape[d] == 1}
    return [axis for d, axis in enumerate(source.axes) if d not in dropped]


def expand(call: Call) -> Results:
    """Repeat: new and broadcast axes hold equal entries, any order will do."""
    source = call.arguments["self"]
    new = call.result.ndim - len(source.axes)
    axes = [[] for _ in range(new)] + list(source.axes)
    return [
        fresh(size) if length(axis) == 1 else axis
        for axis, size in zip(axes, call.result.shape, strict=True)
    ]


def select(call: Call) -> Results:
    """One index of an axis is picked, so the axis is fixed."""
    source, dim = call.arguments["self"], call.arguments["dim"] % len(call.arguments["self"].axes)
    fix(source.axes[dim], PICKED)
    return [axis for d, axis in enumerate(source.axes) if d != dim]


def in_blocks(axis: Axis, block: int) -> Axis:
    """The axis as fixed blocks of ``block`` indices each; returns what lies within a block."""
    parts = take(axis, length(axis) // block)
    if block == 1 or parts is None:
        fix(axis, "cut or joined at places with no common divisor")
        return fresh(block, "cut or joined at places with no common divisor")
    fix(parts[0], PIECES)
    return parts[1]


def chunk_axis(axis: Axis, start: int, size: int) -> Axis:
    """Indices start..start+size of an axis: whole blocks of the largest size that fits the cuts."""
    total = length(axis)
    if size == total:
        return axis
    block = gcd(total, start, size)
    return [*fresh(size // block, PIECES), *in_blocks(axis, block)]


def slice_(call: Call) -> Results:
    """A range of indices."""
    source, dim = (
        call.arguments["self"],
        call.arguments.get("dim", 0) % len(call.arguments["self"].axes),
    )
    start, size = call.arguments.get("start") or 0, call.result.shape[dim]
    start = start + source.value.shape[dim] if start < 0 else start
    axes = list(source.axes)
    if call.arguments.get("step", 1) != 1:
        fix(axes[dim], "picked with a step")
        axes[dim] = fresh(size, "picked with a step")
    else:
        axes[dim] = chunk_axis(axes[dim], start, size)
    return axes


def split(call: Call) -> Results:
    """Consecutive pieces; a list of results."""
    source = call.arguments["self"]
    dim, start, pieces = call.arguments.get("dim", 0) % len(source.axes), 0, []
    for piece in call.result:
        size = piece.shape[dim]
        axes = list(source.axes)
        axes[dim] = chunk_axis(axes[dim], start, size)
        pieces.append(axes)
        start += size
    return pieces


def unbind(call: Call) -> Results:
    """Every index of an axis becomes a result."""
    axes = select(
        Call(call.name, {"self": call.arguments["self"], "dim": call.arguments.get("dim", 0)}, None)
    )
    return [axes for _ in call.result]


def cat(call: Call) -> Results:
    """Pieces become (block, index) with blocks of the largest size that fits all, permuting alike within blocks."""
    pieces = [p for p in call.arguments["tensors"] if p.value.numel()]
    dim = call.arguments.get("dim", 0) % call.result.ndim
    axes = list(pieces[0].axes)
    block = gcd(*(length(piece.axes[dim]) for piece in pieces))
    inner = [in_blocks(piece.axes[dim], block) for piece in pieces]
    for piece, within in zip(pieces[1:], inner[1:], strict=True):
        unify(inner[0], within)
        for d, axis in enumerate(piece.axes):
            if d != dim:
                unify(axes[d], axis)
    blocks = call.result.shape[dim] // block
    axes[dim] = [*fresh(blocks, PIECES), *inner[0]]
    return axes


def index(call: Call) -> Results:
    """Indexed axes are fixed, the others pass; what the indices make takes their place, or comes first.

    An axis indexed by positions on an axis that permutes with it is not fixed: both move together.
    """
    source, indices = call.arguments["self"], list(call.arguments["indices"])
    indexed = [d for d, value in enumerate(indices) if value is not None]
    fix_positions(source.axes)
    first, picked = source.axes[indexed[0]], indices[indexed[0]].axes
    if len(indexed) == 1 and isinstance(picked, Positions) and length(picked.into) == length(first):
        unify(first, picked.into)
        return [*source.axes[: indexed[0]], *picked, *source.axes[indexed[0] + 1 :]]
    for d in indexed:
        fix(source.axes[d], PICKED)
        fix_positions(indices[d].axes)
        for axis in indices[d].axes:
            fix(axis, "used as an index")
    kept = [axis for d, axis in enumerate(source.axes) if d not in indexed]
    together = indexed == list(range(indexed[0], indexed[-1] + 1))
    start, count = (indexed[0] if together else 0), call.result.ndim - len(kept)
    made = [fresh(size, PICKED) for size in call.result.shape[start : start + count]]
    return [*kept[:start], *made, *kept[start:]]


def index_select(call: Call) -> Results:
    """``index`` along one dim."""
    dim = call.arguments["dim"] % len(call.arguments["self"].axes)
    indices = [None] * dim + [call.arguments["index"]]
    return index(Call("index", {"self": call.arguments["self"], "indices": indices}, call.result))
