"""Types of basis maps: what a layer that fits every weight space shares its coefficients by.

The axes of a tensor are read in three groups, by the axis of the parameter that they belong to: ``out`` (the first),
``in`` (the second) and ``rest`` (all others, such as the positions of a kernel). A tensor is a scalar, a vector or a
matrix (any rank from 2 on). A map is read from and written to

* the mean of a tensor, or of the diagonal on which out and in agree where they share a name (nothing is matched),
* a line: one group of axes, or that diagonal,
* a plane: out and in, straight or crossed,
* the whole tensor, where it has more than out and in.

A type is such a pair, with the relation of the tensors and the kind of the matched axes (``hidden``, or ``fixed`` where
no name among them may be permuted). Relations nest: ``own`` (a tensor and itself), ``linked`` (all tensors that have
the matched names, this one among them), ``partly`` (the same for a single name of a group that has several, as the
heads of queries and values) and ``all``. With nothing matched, ``linked`` is taken for each name of a tensor.

On tensors of rank 2 or less these are all valid partitions. Beyond, partitions that match axes of different groups one
by one, or that read diagonals of other axes, are left out. So the list is finite, and the same for every spec.
"""

from collections.abc import Iterator
from itertools import product
from typing import NamedTuple

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.plan import Pattern

View = tuple[str, str]  # shape of the tensor, what is read of it
Readings = dict[View, list[Pattern]]

GROUPS = ("out", "in", "rest")
MEANS: tuple[View, ...] = (
    ("scalar", "mean"),
    ("vector", "mean"),
    ("matrix", "mean"),
    ("matrix", "diagonal mean"),
)
LINES: tuple[View, ...] = (("vector", "out"), *(("matrix", line) for line in (*GROUPS, "diagonal")))
ORDERS: tuple[View, ...] = (
    ("matrix", "plane"),
    ("matrix", "plane turned"),
)  # which of out and in comes first
WHOLE: View = ("matrix", "whole")
PLANES = ("hidden", "mixed", "fixed")  # kinds of out and in together


class Type(NamedTuple):
    """What tells one coefficient from another."""

    relation: str
    kind: str
    source: View
    target: View


def _enumerate() -> Iterator[Type]:
    for source, target in product(MEANS, MEANS):
        yield Type("all", "", source, target)
        if "scalar" not in (source[0], target[0]):
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
        yield from (Type(relation, kind, source, ORDERS[0]) for source in ORDERS)


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
        self.spec, self.parameter, self.names = spec, parameter, spec.axes[parameter]
        factors = spec.views.get(parameter, tuple((1,) for _ in self.names))
        slots = [min(axis, 2) for axis, split in enumerate(factors) for _ in split]
        self.groups = {
            group: [axis for axis, slot in enumerate(slots) if slot == number]
            for number, group in enumerate(GROUPS)
        }
        self.shape = ("scalar", "vector", "matrix")[min(len(factors), 2)]
        self.plain = tuple(range(len(self.names)))
        self.diagonal = self._merge()

    def of(self, group: str) -> tuple[str, ...]:
        """Names of a group, sorted."""
        return tuple(sorted(self.names[axis] for axis in self.groups[group]))

    @property
    def kind(self) -> tuple[str, ...]:
        """One of ``TENSOR_TYPES``."""
        kinds = [kind_of(self.spec, self.of(group)) for group in GROUPS[:2] if self.groups[group]]
        return (
            self.shape,
            *([] if not kinds else kinds if len(kinds) == 1 else [plane_kind(kinds)]),
        )

    def means(self) -> Readings:
        """Nothing is kept."""
        patterns: Readings = {(self.shape, "mean"): [self.pattern(self.plain, [])]}
        if self.diagonal != self.plain:
            patterns["matrix", "diagonal mean"] = [self.pattern(self.diagonal, [])]
        return patterns

    def lines(self, *, partly: bool) -> Iterator[tuple[tuple[str, ...], View, Pattern]]:
        """Signature, view and pattern of each group; of each axis of groups that have several, if ``partly``."""
        groups = [(group, self.plain, axes) for group, axes in self.groups.items() if axes]
        if self.diagonal != self.plain:
            groups.append(("diagonal", self.diagonal, self.groups["out"]))
        for group, labels, axes in groups:
            for chosen in [[axis] for axis in axes] if partly else [axes]:
                pattern = self.pattern(labels, [labels[axis] for axis in chosen])
                yield (
                    tuple(sorted(self.names[axis] for axis in chosen)),
                    (self.shape, group),
                    pattern,
                )

    def plane(self, order: int, *, with_rest: bool = False) -> Pattern:
        """Out and in are kept; order 1 pairs the axes of in with those that order 0 pairs the axes of out with."""
        groups = [self.groups["out"], self.groups["in"]][:: -1 if order else 1]
        return self.pattern(
            self.plain, [*groups[0], *groups[1], *(self.groups["rest"] if with_rest else [])]
        )

    def pattern(self, labels: tuple[int, ...], blocks: list[int]) -> Pattern:
        """The pattern that keeps some blocks, sorted by name so that equal signatures line up."""
        return Pattern(
            self.parameter, labels, tuple(sorted(blocks, key=lambda b: self.names[labels.index(b)]))
        )

    def _merge(self) -> tuple[int, ...]:
        """Labels in which each axis of in has the label of an axis of out with its name, where there is one."""
        labels, free = list(self.plain), list(self.groups["out"])
        for axis in self.groups["in"]:
            same = [other for other in free if self.names[other] == self.names[axis]]
            if same:
                free.remove(same[0])
                labels[axis] = same[0]
        order = list(dict.fromkeys(labels))
        return tuple(order.index(label) for label in labels)


def kind_of(spec: PermutationSpec, names: tuple[str, ...]) -> str:
    """``fixed`` if no name may be permuted."""
    return "fixed" if all(name in spec.fixed for name in names) else "hidden"


def plane_kind(kinds: list[str]) -> str:
    """Of out and in together."""
    return kinds[0] if kinds[0] == kinds[1] else "mixed"


def tensor_types(spec: PermutationSpec) -> dict[str, int]:
    """Parameter -> its place in ``TENSOR_TYPES``."""
    return {parameter: TENSOR_TYPES.index(Axes(spec, parameter).kind) for parameter in spec.axes}
