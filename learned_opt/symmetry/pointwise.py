"""Rules of operations that work entry by entry or along an axis."""

from collections.abc import Callable

from torch import Tensor

from learned_opt.symmetry.atoms import fix, length, unify
from learned_opt.symmetry.calls import (
    Axes,
    Call,
    Positions,
    Results,
    constant_axes,
    fresh,
    not_understood,
)


def pointwise(call: Call) -> Results:
    """Aligned axes permute together; an axis of length 1 broadcasts."""
    rank = call.result.ndim
    axes: Axes = [[] for _ in range(rank)]
    for labelled in call.labelled:
        for offset, axis in enumerate(reversed(labelled.axes)):
            position = rank - 1 - offset
            if length(axis) == 1:
                continue
            if length(axes[position]) == 1:
                axes[position] = axis
            else:
                unify(axes[position], axis)
    return axes


def reduction(call: Call) -> Results:
    """Sums, means, extrema and moments do not see the order of what they reduce."""
    source, dims = call.arguments["self"], call.arguments.get("dim")
    rank = len(source.axes)
    dims = [] if dims is None else [dims] if isinstance(dims, int) else list(dims)
    reduced = {d % rank for d in dims} if dims else set(range(rank))
    if call.arguments.get("keepdim", False):
        axes: Axes = [[] if d in reduced else axis for d, axis in enumerate(source.axes)]
    else:
        axes = [axis for d, axis in enumerate(source.axes) if d not in reduced]
    return axes if isinstance(call.result, Tensor) else [axes for _ in call.result]


def argument(call: Call) -> Results:
    """``argmin`` and ``argmax``: the position that they find moves with the axis along which they look."""
    source, dim = call.arguments["self"], call.arguments.get("dim")
    if dim is None:
        return not_understood(call)
    into = source.axes[dim]
    return Positions(reduction(call), into)


def along(*names: str) -> Callable[[Call], Results]:
    """A rule for operations in which the order along one dim matters and all other axes pass through."""

    def rule(call: Call) -> Results:
        source = call.arguments["self"]
        dims = next(
            (call.arguments[name] for name in names if call.arguments.get(name) is not None), -1
        )
        dims = {d % len(source.axes) for d in ([dims] if isinstance(dims, int) else dims)}
        reason = f"the order along it matters to {call.name}"

        def axes_of(result: Tensor) -> Axes:
            for d in dims:
                fix(source.axes[d], reason)
            sizes = result.shape
            return [
                fresh(sizes[d], reason) if d in dims else axis for d, axis in enumerate(source.axes)
            ]

        return (
            axes_of(call.result)
            if isinstance(call.result, Tensor)
            else [axes_of(r) for r in call.result]
        )

    return rule


def same_axes(call: Call) -> Results:
    """The result has the axes of the first argument."""
    return next(iter(call.labelled)).axes


def filled(call: Call) -> Results:
    """A new tensor that takes only shape and type from its argument."""
    return constant_axes(call.result)
