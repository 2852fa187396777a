"""Spec -> blocks: all maps of a layer tied by type, those with the same coefficients together.

A cell holds the maps of one relation and one signature. Its sources are averages over all tensors that are read alike,
so that cells have as many entries as there are tensors, not pairs of them.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.plan import Pattern
from learned_opt.unf.types import ORDERS, ROW, WHOLE, Axes, Readings, Type, View, kind_of


class Cell(NamedTuple):
    """Maps of one signature, from the mean of the patterns of each source to every pattern of each target."""

    sources: tuple[tuple[Pattern, ...], ...]
    targets: tuple[tuple[Pattern, ...], ...]


class Block(NamedTuple):
    """Cells with the same coefficients; ``rows[k][d]`` is the type from source k to target d."""

    rows: tuple[tuple[int, ...], ...]
    cells: tuple[Cell, ...]
    small: bool  # at most lines are read, so that cells can be put side by side


@cache
def make_blocks(spec: PermutationSpec) -> tuple[Block, ...]:
    """All cells of a spec, those with the same coefficients together; computed once per spec."""
    blocks: dict[tuple, list[Cell]] = defaultdict(list)
    tensors = [Axes(spec, parameter) for parameter in spec.axes]
    for relation, kind, sources, targets, small in _cells(spec, tensors):
        index = tuple(
            tuple(ROW[_type(relation, kind, source, target)] for target in targets)
            for source in sources
        )
        cell = Cell(tuple(map(tuple, sources.values())), tuple(map(tuple, targets.values())))
        blocks[index, small].append(cell)
    return tuple(Block(index, tuple(cells), small) for (index, small), cells in blocks.items())


def num_terms(spec: PermutationSpec) -> dict[str, int]:
    """How many averaged sources arrive at each tensor."""
    counts = dict.fromkeys(spec.axes, 0)
    for block in make_blocks(spec):
        for pattern in (
            pattern for cell in block.cells for target in cell.targets for pattern in target
        ):
            counts[pattern.parameter] += len(block.rows)
    return counts


def _cells(
    spec: PermutationSpec, tensors: list[Axes]
) -> Iterator[tuple[str, str, Readings, Readings, bool]]:
    """Relation, kind, sources and targets of each cell, and whether it is small."""
    for relation, readings in _mean_cells(tensors):
        yield relation, "", readings, readings, True
    for relation, names, readings in _line_cells(tensors):
        yield relation, kind_of(spec, names), readings, readings, True
    for relation, kind, sources, targets in _plane_cells(tensors):
        yield relation, kind, sources, targets, False


def _mean_cells(tensors: list[Axes]) -> Iterator[tuple[str, Readings]]:
    yield "all", _gather([tensor.means() for tensor in tensors])
    for tensor in tensors:
        yield "own", tensor.means()
    for name in dict.fromkeys(name for tensor in tensors for name in tensor.names):
        linked = [tensor.means() for tensor in tensors if name in tensor.names]
        if len(linked) > 1:
            yield "linked", _gather(linked)


def _line_cells(tensors: list[Axes]) -> Iterator[tuple[str, tuple[str, ...], Readings]]:
    groups = {
        names for tensor in tensors for names, _, _ in tensor.lines(partly=False) if len(names) > 1
    }
    parts = {(name,) for names in groups for name in names}
    for relation, partly in (("linked", False), ("partly", True)):
        by_names: dict[tuple[str, ...], list[tuple[View, Pattern]]] = defaultdict(list)
        for tensor in tensors:
            for names, view, pattern in tensor.lines(partly=partly):
                by_names[names].append((view, pattern))
        for names, lines in by_names.items():
            if len({pattern.parameter for _, pattern in lines}) > 1 and (
                not partly or names in parts
            ):
                yield relation, names, _gather([{view: [pattern]} for view, pattern in lines])
            if not partly:
                for tensor in tensors:
                    own = [
                        {view: [pattern]}
                        for view, pattern in lines
                        if pattern.parameter == tensor.parameter
                    ]
                    if own:
                        yield "own", names, _gather(own)


def _plane_cells(tensors: list[Axes]) -> Iterator[tuple[str, str, Readings, Readings]]:
    planes: dict[tuple, list[Axes]] = defaultdict(list)
    wholes: dict[tuple, list[Axes]] = defaultdict(list)
    for tensor in tensors:
        if tensor.shape == "matrix":
            planes[tuple(sorted((tensor.of("out"), tensor.of("in"))))].append(tensor)
            if tensor.groups["rest"]:
                wholes[tensor.names, *map(tuple, tensor.groups.values())].append(tensor)
    for (first, second), linked in planes.items():
        for relation, members in _own_and_linked(linked):
            yield relation, members[0].kind[1], *_orders(members, first, second)
    for linked in wholes.values():
        for relation, members in _own_and_linked(linked):
            whole = {WHOLE: [tensor.plane(0, with_rest=True) for tensor in members]}
            yield relation, members[0].kind[1], whole, whole


def _own_and_linked(tensors: list[Axes]) -> list[tuple[str, list[Axes]]]:
    return [("own", [tensor]) for tensor in tensors] + (
        [("linked", tensors)] if len(tensors) > 1 else []
    )


def _orders(
    tensors: list[Axes], first: tuple[str, ...], second: tuple[str, ...]
) -> tuple[Readings, Readings]:
    """Patterns of planes by the order of their axes; a square one is read in both orders and written in one."""
    if first == second:
        both = {
            view: [tensor.plane(order) for tensor in tensors] for order, view in enumerate(ORDERS)
        }
        return both, {ORDERS[0]: both[ORDERS[0]]}
    orders = [int(tensor.of("out") != first) for tensor in tensors]
    own = [
        {ORDERS[order]: [tensor.plane(order)]}
        for tensor, order in zip(tensors, orders, strict=True)
    ]
    return _gather(own), _gather(own)


def _gather(readings: Sequence[Readings]) -> Readings:
    """All patterns of each view, views in a fixed order."""
    views = sorted({view for own in readings for view in own})
    return {view: [pattern for own in readings for pattern in own.get(view, [])] for view in views}


def _type(relation: str, kind: str, source: View, target: View) -> Type:
    if target in ORDERS:  # only whether they turn counts
        source, target = ORDERS[source != target], ORDERS[0]
    return Type(relation, kind, source, target)
