"""One operation of a trace, as the rules see it."""

from typing import Any, NamedTuple

from torch import Tensor

from learned_opt.symmetry.atoms import Axis, fix, fresh

Axes = list[Axis]
Results = Any  # Axes of the result, or a list of Axes for an operation with several
PICKED = "picked by index"
POSITION = "a position in an image or a kernel"


class Positions(list[Axis]):
    """Axes of a tensor of integers that are positions on another axis.

    When that axis is permuted, the values of the tensor are permuted with it.

    Args:
        axes: of the tensor.
        into: the axis that the positions are on.
    """

    def __init__(self, axes: Axes, into: Axis) -> None:
        super().__init__(axes)
        self.into = into


class Labelled(NamedTuple):
    """A tensor of the trace: its value on the example inputs and its axes."""

    value: Tensor
    axes: Axes


class Call(NamedTuple):
    """One operation and its arguments.

    Args:
        name: without namespace and overload, e.g. ``mm``.
        arguments: by schema name, defaults filled in, tensors as ``Labelled``.
        result: the value that it returned.
    """

    name: str
    arguments: dict[str, Any]
    result: Any

    @property
    def labelled(self) -> list[Labelled]:
        """All tensor arguments, those in lists too."""
        tensors: list[Labelled] = []
        for argument in self.arguments.values():
            # a Labelled is itself a tuple, so only lists are looked into
            values = argument if isinstance(argument, list) else [argument]
            tensors.extend(value for value in values if isinstance(value, Labelled))
        return tensors

    def dim(self, default: int | None = None) -> int:
        """The argument ``dim``, counted from the front of the axes of ``self``."""
        rank = len(self.arguments["self"].axes)
        if default is None:
            return self.arguments["dim"] % rank
        return self.arguments.get("dim", default) % rank


def constant_axes(value: Tensor) -> Axes:
    """The axes of a constant, which may be permuted where it does not vary."""
    axes = []
    for dim, size in enumerate(value.shape):
        varies = size > 1 and not bool((value == value.narrow(dim, 0, 1)).all())
        axes.append(fresh(size, "a constant varies along it" if varies else ""))
    return axes


def fix_positions(axes: Any) -> None:
    """Fix the axis that a tensor's entries are positions on, where they are taken for numbers."""
    if isinstance(axes, Positions):
        fix(axes.into, "positions on it are used as numbers")


def not_understood(call: Call) -> Results:
    """Fix all axes of all arguments; the results get fixed axes of their own."""
    reason = f"the operation {call.name} is not understood"
    for labelled in call.labelled:
        for axis in labelled.axes:
            fix(axis, reason)

    def results(value: Any) -> Any:
        if isinstance(value, Tensor):
            return [fresh(size, reason) for size in value.shape]
        return [results(part) for part in value]

    return results(call.result)
