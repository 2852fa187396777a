"""Types of basis maps: what a layer that fits every weight space shares its coefficients by.

The axes of a tensor are read in three groups, by the axis of the parameter that they belong to:
``out`` (the first), ``in`` (the second) and ``rest`` (all others, such as the positions of a
kernel). A tensor is a scalar, a vector or a matrix (any rank from 2 on). A map is read from and
written to

* the mean of a tensor, or of the diagonal on which out and in agree where they share a name
  (nothing is matched),
* a line: one group of axes, or that diagonal,
* a plane: out and in, straight or crossed,
* the whole tensor, where it has more than out and in.

A type is such a pair, with the relation of the tensors and the kind of the matched axes
(``hidden``, or ``fixed`` where no name among them may be permuted). Relations nest: ``own`` (a
tensor and itself), ``linked`` (all tensors that have the matched names, this one among them),
``partly`` (the same for a single name of a group that has several, as the heads of queries and
values) and ``all``. With nothing matched, ``linked`` is taken for each name of a tensor.

On tensors of rank 2 or less these are all valid partitions. Beyond, partitions that match axes of
different groups one by one, or that read diagonals of other axes, are left out. So the list is
finite, and the same for every spec.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.plan import Pattern

View = tuple[str, str]  # shape of the tensor, and the part of it that is read
Readings = dict[View, list[Pattern]]

GROUPS = ("out", "in", "rest")
MEANS: tuple[View, ...] = (
    ("scalar", "mean"),
    ("vector", "mean"),
    ("matrix", "mean"),
    ("matrix", "diagonal mean"),
)
LINES: tuple[View, ...] = (
    ("vector", "out"),
    ("matrix", "out"),
    ("matrix", "in"),
    ("matrix", "rest"),
    ("matrix", "diagonal"),
)
# which of out and in comes first
ORDERS: tuple[View, ...] = (("matrix", "plane"), ("matrix", "plane turned"))
WHOLE: View = ("matrix", "whole")
PLANES = ("hidden", "mixed", "fixed")  # kinds of out and in together


class Type(NamedTuple):
    """The properties that tell one coefficient from another."""

    relation: str
    kind: str
    source: View
    target: View


def _enumerate() -> Iterator[Type]:
    """All types, in the order of the rows of theta."""
    for source, target in product(MEANS, MEANS):
        yield Type("all", "", source, target)
        if "scalar" not in (source[0], target[0]):  # a scalar has no names to be linked by
            yield Type("linked", "", source, target)
        if source[0] == target[0]:
            yield Type("own", "", source, target)

    for source, target, kind in product(LINES, LINES, ("hidden", "fixed")):
        yield Type("linked", kind, source, target)
        yield Type("partly", kind, source, target)
        if source[0] == target[0]:
            yield Type("own", kind, source, target)

    for relation, kind in product(("own", "linked"), PLANES):
        yield Type(relation, kind, WHOLE, WHOLE)
        for source in ORDERS:
            yield Type(relation, kind, source, ORDERS[0])


TYPES = tuple(_enumerate())
TENSOR_TYPES = (
    ("scalar",),
    *product(("vector",), ("hidden", "fixed")),
    *product(("matrix",), PLANES),
)
ROW = {kind: row for row, kind in enumerate(TYPES)}


class Axes:
    """The axes of one tensor by their groups, and its patterns.

    Args:
        spec: permutation spec.
        parameter: name of the tensor.
    """

    def __init__(self, spec: PermutationSpec, parameter: str) -> None:
        self.spec = spec
        self.parameter = parameter
        self.names = spec.axes[parameter]

        # a merged axis of the parameter has several factors, each an axis of the spec
        self.groups: dict[str, list[int]] = {group: [] for group in GROUPS}
        slots = spec.slots(parameter)
        for axis, slot in enumerate(slots):
            self.groups[GROUPS[min(slot, 2)]].append(axis)

        self.shape = ("scalar", "vector", "matrix")[min(len(set(slots)), 2)]
        self.plain = tuple(range(len(self.names)))
        self.diagonal = self._merge()

    def of(self, group: str) -> tuple[str, ...]:
        """Names of the axes of a group, sorted."""
        return tuple(sorted(self.names[axis] for axis in self.groups[group]))

    @property
    def kind(self) -> tuple[str, ...]:
        """The type of the tensor, one of ``TENSOR_TYPES``."""
        kinds = [kind_of(self.spec, self.of(group)) for group in GROUPS[:2] if self.groups[group]]
        if len(kinds) < 2:
            return (self.shape, *kinds)
        return (self.shape, plane_kind(kinds))

    def means(self) -> Readings:
        """The patterns that keep no axis: the mean, and that of the diagonal where there is one."""
        patterns: Readings = {(self.shape, "mean"): [self.pattern(self.plain, [])]}
        if self.diagonal != self.plain:
            patterns["matrix", "diagonal mean"] = [self.pattern(self.diagonal, [])]
        return patterns

    def lines(self, *, partly: bool) -> Iterator[tuple[tuple[str, ...], View, Pattern]]:
        """The patterns that keep one group.

        Args:
            partly: keep one axis each of the groups that have several, not the whole group.

        Yields:
            tuple[tuple[str, ...], View, Pattern]: signature, view and pattern.
        """
        groups = [(group, self.plain, axes) for group, axes in self.groups.items() if axes]
        if self.diagonal != self.plain:
            groups.append(("diagonal", self.diagonal, self.groups["out"]))

        for group, labels, axes in groups:
            for chosen in [[axis] for axis in axes] if partly else [axes]:
                names = sorted(self.names[axis] for axis in chosen)
                pattern = self.pattern(labels, [labels[axis] for axis in chosen])
                yield tuple(names), (self.shape, group), pattern

    def plane(self, order: int, *, with_rest: bool = False) -> Pattern:
        """The pattern that keeps out and in.

        Args:
            order: order 1 pairs the axes of in with those that order 0 pairs the axes of out with.
            with_rest: keep all other axes too.
        """
        first = self.groups["in" if order else "out"]
        second = self.groups["out" if order else "in"]
        rest = self.groups["rest"] if with_rest else []
        return self.pattern(self.plain, [*first, *second, *rest])

    def pattern(self, labels: tuple[int, ...], blocks: list[int]) -> Pattern:
        """The pattern that keeps some blocks, sorted by name so that equal signatures line up."""
        kept = sorted(blocks, key=lambda block: self.names[labels.index(block)])
        return Pattern(self.parameter, labels, tuple(kept))

    def _merge(self) -> tuple[int, ...]:
        """The labels of the diagonal on which out and in agree.

        Each axis of in has the label of an axis of out with its name, where there is one.
        """
        labels = list(self.plain)
        free = list(self.groups["out"])
        for axis in self.groups["in"]:
            same = [other for other in free if self.names[other] == self.names[axis]]
            if same:
                free.remove(same[0])
                labels[axis] = same[0]

        order = list(dict.fromkeys(labels))
        return tuple(order.index(label) for label in labels)


def kind_of(spec: PermutationSpec, names: tuple[str, ...]) -> str:
    """``fixed`` if no name may be permuted, else ``hidden``."""
    return "fixed" if all(name in spec.fixed for name in names) else "hidden"


def plane_kind(kinds: list[str]) -> str:
    """The kind of out and in together.

    >>> plane_kind(["hidden", "fixed"])
    'mixed'
    """
    return kinds[0] if kinds[0] == kinds[1] else "mixed"


def tensor_types(spec: PermutationSpec) -> dict[str, int]:
    """The index of each parameter's type in ``TENSOR_TYPES``."""
    return {parameter: TENSOR_TYPES.index(Axes(spec, parameter).kind) for parameter in spec.axes}
