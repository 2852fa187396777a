"""The plan of equivariant layers as loops over rows, which a kernel runs (``program.h``).

A *row* is all channels of one entry. The rows of all tensors lie one behind the other; so do
those of *source tables*, means of tensors over some of their blocks, and of *target tables*, what
products leave at a reduced shape. All layers of one plan run the same program.

Legend: K sources, D targets of a group; strides and starts are counted in rows.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import prod
from typing import NamedTuple

from learned_opt.unf.plan import Group, Pattern, Plan

Shape = tuple[int, ...]


class Rows(NamedTuple):
    """Rows that a loop goes over.

    Args:
        whole: among the rows of tensors; False among those of tables.
        start: the first one.
        strides: of each axis of the loop.
    """

    whole: bool
    start: int
    strides: Shape


class Walk(NamedTuple):
    """Add rows, divided by a number, to others.

    Args:
        tensor: walks of one tensor run in their order.
        sizes: of the loop.
        source: what is added.
        target: where to.
        fresh: how many rows from the start of the target begin as zero.
        divisor: of the rows.
    """

    tensor: int
    sizes: Shape
    source: Rows
    target: Rows
    fresh: int
    divisor: int


class Product(NamedTuple):
    """All sources of a group into one of its targets.

    Args:
        group: number of the group.
        target: number of the target in the group.
        tensor: that is written to.
        sizes: of the loop.
        order: for each axis of the loop, its position in the signature of the group.
        output: where the rows go; as a whole they get a bias, the addends and the ReLU.
        addends: target tables that are added, with strides for each axis of the loop.
    """

    group: int
    target: int
    tensor: int
    sizes: Shape
    order: Shape
    output: Rows
    addends: tuple[Rows, ...]


def natural_strides(sizes: Sequence[int]) -> Shape:
    """The strides of rows in the order of their indices.

    >>> natural_strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(prod(sizes[axis + 1 :]) for axis in range(len(sizes)))


class Program:
    """What one layer does.

    Args:
        plan: of the layers.
        shapes: of the tensors, in the order in which their rows lie.

    Attributes:
        starts: first row of each tensor.
        num_rows: of all tensors.
        num_source_rows: of all source tables.
        num_target_rows: of all target tables.
        reads: walks that make the source tables.
        sources: of each group, with a stride for each name of its signature.
        products: those that write tables, then those that write tensors.
        merges: walks that add target tables into larger ones.

    >>> from learned_opt.symmetry import PermutationSpec
    >>> from learned_opt.unf.plan import make_plan
    >>> plan = make_plan(PermutationSpec({"weight": ("h", "x"), "bias": ("h",)}))
    >>> program = Program(plan, {"weight": (5, 4), "bias": (5,)})
    >>> len(program.reads), len(program.products)
    (4, 6)
    """

    def __init__(self, plan: Plan, shapes: Mapping[str, Shape]) -> None:
        self.names = list(shapes)
        self.shapes = dict(shapes)
        self.starts: dict[str, int] = {}
        self.num_rows = 0
        for name, shape in shapes.items():
            self.starts[name] = self.num_rows
            self.num_rows += prod(shape)
        self.num_source_rows = 0
        self.num_target_rows = 0

        self.reads: list[Walk] = []
        self._views: dict[Pattern, Rows] = {}  # strides of each kept block
        self.sources = [self._sources(group) for group in plan.groups]

        self.merges: list[Walk] = []
        self._parts: dict[str, list[tuple[Pattern, Rows]]] = {name: [] for name in shapes}
        reduced = list(self._reduced(plan))
        self.products = [*reduced, *self._whole(plan)]

    def _sources(self, group: Group) -> list[Rows]:
        rows = []
        for source in group.sources:
            kept = tuple(sorted(source.kept))
            view = self._view(source._replace(kept=kept))
            strides = tuple(view.strides[kept.index(block)] for block in source.kept)
            rows.append(view._replace(strides=strides))
        return rows

    def _view(self, pattern: Pattern) -> Rows:
        """The rows of a pattern whose kept blocks are in their order; each is made once."""
        if pattern not in self._views:
            blocks = range(len(set(pattern.labels)))
            dropped = [block for block in blocks if block not in pattern.kept]
            if dropped:
                self._views[pattern] = self._mean(pattern, dropped[-1])
            else:
                start = self.starts[pattern.parameter]
                self._views[pattern] = Rows(True, start, self._block_strides(pattern))
        return self._views[pattern]

    def _mean(self, pattern: Pattern, dropped: int) -> Rows:
        """A table of means over a block, taken from the next larger one."""
        kept = tuple(sorted((*pattern.kept, dropped)))
        source = self._view(pattern._replace(kept=kept))
        sizes = self._sizes(pattern, kept)
        axis = kept.index(dropped)

        left = [*sizes[:axis], *sizes[axis + 1 :]]
        strides = natural_strides(left)
        table = Rows(False, self.num_source_rows, strides)
        self.num_source_rows += prod(left)

        target = table._replace(strides=(*strides[:axis], 0, *strides[axis:]))
        tensor = self.names.index(pattern.parameter)
        self.reads.append(Walk(tensor, sizes, source, target, prod(left), sizes[axis]))
        return table

    def _block_strides(self, pattern: Pattern) -> Shape:
        """How far apart the rows of a tensor are along each block, diagonals included."""
        axes = natural_strides(self.shapes[pattern.parameter])
        strides = [0] * len(set(pattern.labels))
        for axis, block in enumerate(pattern.labels):
            strides[block] += axes[axis]
        return tuple(strides)

    def _sizes(self, pattern: Pattern, blocks: Sequence[int]) -> Shape:
        shape = self.shapes[pattern.parameter]
        return tuple(shape[pattern.labels.index(block)] for block in blocks)

    def _reduced(self, plan: Plan) -> Iterator[Product]:
        """The products that write tables."""
        for number, group in enumerate(plan.groups):
            for position, target in enumerate(group.targets):
                if _is_whole(target):
                    continue
                sizes = self._sizes(target, target.kept)
                table = self._table(sizes)
                self._parts[target.parameter].append((target, table))
                tensor = self.names.index(target.parameter)
                order = tuple(range(len(sizes)))
                yield Product(number, position, tensor, sizes, order, table, ())

    def _whole(self, plan: Plan) -> Iterator[Product]:
        """The products that write tensors."""
        for number, group in enumerate(plan.groups):
            for position, target in enumerate(group.targets):
                if not _is_whole(target):
                    continue
                name = target.parameter
                sizes = self.shapes[name]
                order = tuple(target.kept.index(axis) for axis in range(len(sizes)))
                output = Rows(True, self.starts[name], natural_strides(sizes))
                tensor = self.names.index(name)
                addends = tuple(self._addends(name))
                yield Product(number, position, tensor, sizes, order, output, addends)

    def _table(self, sizes: Sequence[int]) -> Rows:
        table = Rows(False, self.num_target_rows, natural_strides(sizes))
        self.num_target_rows += prod(sizes)
        return table

    def _addends(self, name: str) -> Iterator[Rows]:
        """What is added to each row of a tensor, after small tables are merged into larger ones.

        Those that remain have all axes but one; and one of all rows holds what lies on diagonals.
        """
        shape = self.shapes[name]
        plain = {}  # kept axes -> strides of all axes
        diagonals = []
        for pattern, table in self._parts[name]:
            if len(set(pattern.labels)) < len(pattern.labels):
                diagonals.append((pattern, table))
            else:
                plain[frozenset(pattern.kept)] = _spread(pattern, table)

        for kept, rows in plain.items():
            if len(kept) >= len(shape) - 1:
                yield rows
                continue
            missing = [axis for axis in range(len(shape)) if axis not in kept]
            longest = max(missing, key=lambda axis: shape[axis])
            others = frozenset(range(len(shape))) - {longest}
            axes = sorted(others)
            self._merge(name, _at(shape, axes), _along(rows, axes), _along(plain[others], axes), 0)

        if diagonals:
            rows = self._table(shape)
            for number, (pattern, table) in enumerate(diagonals):
                blocks = range(len(set(pattern.labels)))
                target = rows._replace(strides=self._block_strides(pattern))
                fresh = prod(shape) if number == 0 else 0
                self._merge(
                    name, self._sizes(pattern, blocks), _spread(pattern, table), target, fresh
                )
            yield rows

    def _merge(self, name: str, sizes: Shape, source: Rows, target: Rows, fresh: int) -> None:
        self.merges.append(Walk(self.names.index(name), sizes, source, target, fresh, 1))


def _is_whole(pattern: Pattern) -> bool:
    return len(pattern.kept) == len(pattern.labels)


def _spread(pattern: Pattern, table: Rows) -> Rows:
    """A table with a stride for each block: zero for those that are not kept."""
    strides = [0] * len(set(pattern.labels))
    for block, stride in zip(pattern.kept, table.strides, strict=True):
        strides[block] = stride
    return table._replace(strides=tuple(strides))


def _at(values: Shape, axes: Sequence[int]) -> Shape:
    return tuple(values[axis] for axis in axes)


def _along(rows: Rows, axes: Sequence[int]) -> Rows:
    return rows._replace(strides=_at(rows.strides, axes))
