"""Rules of operations that work entry by entry or along an axis."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from learned_opt.symmetry.atoms import fix, fresh, length, unify
from learned_opt.symmetry.calls import (
    Axes,
    Call,
    Positions,
    Results,
    not_understood,
)


def pointwise(call: Call) -> Results:
    """Aligned axes permute together; an axis of length 1 broadcasts."""
    rank = call.result.ndim
    axes: Axes = [[] for _ in range(rank)]

    for labelled in call.labelled:
        for offset, axis in enumerate(reversed(labelled.axes)):
            position = rank - 1 - offset  # broadcasting aligns from the right
            if length(axis) == 1:
                continue
            if length(axes[position]) == 1:
                axes[position] = axis
            else:
                unify(axes[position], axis)
    return axes


def reduction(call: Call) -> Results:
    """Sums, means, extrema and moments do not see the order of what they reduce."""
    source = call.arguments["self"]
    dims = as_list(call.arguments.get("dim"))
    rank = len(source.axes)
    reduced = {dim % rank for dim in dims} if dims else set(range(rank))

    if call.arguments.get("keepdim", False):
        axes: Axes = [[] if dim in reduced else axis for dim, axis in enumerate(source.axes)]
    else:
        axes = [axis for dim, axis in enumerate(source.axes) if dim not in reduced]
    return axes if isinstance(call.result, Tensor) else [axes for _ in call.result]


def as_list(dims: Any) -> list[int]:
    """An argument that is one dim, several, or none of them, as a list.

    >>> as_list(None), as_list(-1), as_list((0, 2))
    ([], [-1], [0, 2])
    """
    if dims is None:
        return []
    return [dims] if isinstance(dims, int) else list(dims)


def argument(call: Call) -> Results:
    """``argmin`` and ``argmax``: the position moves with the axis along which they look."""
    source = call.arguments["self"]
    dim = call.arguments.get("dim")
    if dim is None:
        return not_understood(call)

    into = source.axes[dim]
    return Positions(reduction(call), into)


def along(*names: str) -> Callable[[Call], Results]:
    """A rule for operations that see the order along one dim; all other axes pass through.

    Args:
        names: how the schema calls that dim; the first that the operation has is used.
    """

    def rule(call: Call) -> Results:
        source = call.arguments["self"]
        settings = [call.arguments.get(name) for name in names]
        chosen = next((setting for setting in settings if setting is not None), -1)
        dims = {dim % len(source.axes) for dim in as_list(chosen)}
        reason = f"the order along it matters to {call.name}"
        for dim in dims:
            fix(source.axes[dim], reason)

        def axes_of(result: Tensor) -> Axes:
            axes = list(source.axes)
            for dim in dims:
                axes[dim] = fresh(result.shape[dim], reason)
            return axes

        if isinstance(call.result, Tensor):
            return axes_of(call.result)
        return [axes_of(result) for result in call.result]

    return rule


def same_axes(call: Call) -> Results:
    """The result has the axes of the first argument."""
    # by position: operations call it self, input or src
    return next(iter(call.labelled)).axes


def filled(call: Call) -> Results:
    """A new tensor that takes only shape and type from its argument."""
    return [fresh(size) for size in call.result.shape]
