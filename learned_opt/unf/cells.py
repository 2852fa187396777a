"""Spec -> blocks: all maps of a layer tied by type, those with the same coefficients together.

A cell holds the maps of one relation and one signature. Its sources are averages over all tensors
that are read alike, so that cells have as many entries as there are tensors, not pairs of them.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.plan import Pattern
from learned_opt.unf.types import ORDERS, ROW, WHOLE, Axes, Readings, Type, View, kind_of

Names = tuple[str, ...]


class Cell(NamedTuple):
    """Maps of one signature, from the mean of each source's patterns to all of each target's."""

    sources: tuple[tuple[Pattern, ...], ...]
    targets: tuple[tuple[Pattern, ...], ...]


class Block(NamedTuple):
    """Cells with the same coefficients; ``rows[k][d]`` is the type from source k to target d."""

    rows: tuple[tuple[int, ...], ...]
    cells: tuple[Cell, ...]
    small: bool  # at most lines are read, so that cells can be put side by side


class _Readings(NamedTuple):
    """What one cell reads and writes, by view, before types become rows of the table."""

    relation: str
    kind: str
    sources: Readings
    targets: Readings
    small: bool


@cache
def make_blocks(spec: PermutationSpec) -> tuple[Block, ...]:
    """All cells of a spec, those with the same coefficients together; computed once per spec."""
    tensors = [Axes(spec, parameter) for parameter in spec.axes]

    cells: dict[tuple, list[Cell]] = defaultdict(list)
    for readings in _cells(spec, tensors):
        sources = tuple(map(tuple, readings.sources.values()))
        targets = tuple(map(tuple, readings.targets.values()))
        cells[_rows(readings), readings.small].append(Cell(sources, targets))

    return tuple(Block(rows, tuple(members), small) for (rows, small), members in cells.items())


def num_terms(spec: PermutationSpec) -> dict[str, int]:
    """How many averaged sources arrive at each tensor."""
    counts = dict.fromkeys(spec.axes, 0)
    for block in make_blocks(spec):
        for cell in block.cells:
            for patterns in cell.targets:
                for pattern in patterns:
                    counts[pattern.parameter] += len(block.rows)
    return counts


def _rows(cell: _Readings) -> tuple[tuple[int, ...], ...]:
    """The row of the table for each source and target of a cell."""
    rows = []
    for source in cell.sources:
        types = [_type(cell.relation, cell.kind, source, target) for target in cell.targets]
        rows.append(tuple(ROW[kind] for kind in types))
    return tuple(rows)


def _type(relation: str, kind: str, source: View, target: View) -> Type:
    if target in ORDERS:  # only whether they turn counts
        source = ORDERS[source != target]
        target = ORDERS[0]
    return Type(relation, kind, source, target)


def _cells(spec: PermutationSpec, tensors: list[Axes]) -> Iterator[_Readings]:
    for relation, readings in _mean_cells(tensors):
        yield _Readings(relation, "", readings, readings, small=True)
    for relation, names, readings in _line_cells(tensors):
        yield _Readings(relation, kind_of(spec, names), readings, readings, small=True)
    for relation, kind, sources, targets in _plane_cells(tensors):
        yield _Readings(relation, kind, sources, targets, small=False)


def _mean_cells(tensors: list[Axes]) -> Iterator[tuple[str, Readings]]:
    yield "all", _gather([tensor.means() for tensor in tensors])

    for tensor in tensors:
        yield "own", tensor.means()

    names: dict[str, list[Axes]] = defaultdict(list)
    for tensor in tensors:
        for name in dict.fromkeys(tensor.names):
            names[name].append(tensor)
    for linked in names.values():
        if len(linked) > 1:
            yield "linked", _gather([tensor.means() for tensor in linked])


def _line_cells(tensors: list[Axes]) -> Iterator[tuple[str, Names, Readings]]:
    for names, lines in _lines(tensors, partly=False).items():
        if _num_tensors(lines) > 1:
            yield "linked", names, _gather(lines)
        for tensor in tensors:
            own_lines = [line for line in lines if _parameter(line) == tensor.parameter]
            if own_lines:
                yield "own", names, _gather(own_lines)

    parts = _parts_of_groups(tensors)
    for names, lines in _lines(tensors, partly=True).items():
        if _num_tensors(lines) > 1 and names in parts:
            yield "partly", names, _gather(lines)


def _lines(tensors: list[Axes], *, partly: bool) -> dict[Names, list[Readings]]:
    """The lines of all tensors by their signatures, each a reading of its own."""
    by_names: dict[Names, list[Readings]] = defaultdict(list)
    for tensor in tensors:
        for names, view, pattern in tensor.lines(partly=partly):
            by_names[names].append({view: [pattern]})

    return by_names


def _parts_of_groups(tensors: list[Axes]) -> set[Names]:
    """The names that lie beside others in one group of axes of some tensor."""
    parts = set()
    for tensor in tensors:
        for names, _, _ in tensor.lines(partly=False):
            if len(names) > 1:
                parts.update((name,) for name in names)

    return parts


def _parameter(line: Readings) -> str:
    ((pattern,),) = line.values()
    return pattern.parameter


def _num_tensors(lines: list[Readings]) -> int:
    return len(set(map(_parameter, lines)))


def _plane_cells(tensors: list[Axes]) -> Iterator[tuple[str, str, Readings, Readings]]:
    planes: dict[tuple[Names, Names], list[Axes]] = defaultdict(list)
    wholes: dict[tuple, list[Axes]] = defaultdict(list)
    for tensor in tensors:
        if tensor.shape == "matrix":
            first, second = sorted((tensor.of("out"), tensor.of("in")))
            planes[first, second].append(tensor)
            if tensor.groups["rest"]:
                key = (tensor.names, *map(tuple, tensor.groups.values()))
                wholes[key].append(tensor)

    for (first, second), linked in planes.items():
        for relation, members in _own_and_linked(linked):
            sources, targets = _orders(members, first, second)
            yield relation, members[0].kind[1], sources, targets
    for linked in wholes.values():
        for relation, members in _own_and_linked(linked):
            whole = {WHOLE: [tensor.plane(0, with_rest=True) for tensor in members]}
            yield relation, members[0].kind[1], whole, whole


def _own_and_linked(tensors: list[Axes]) -> list[tuple[str, list[Axes]]]:
    """Each tensor by itself, and all of them together where there are several."""
    relations = [("own", [tensor]) for tensor in tensors]

    if len(tensors) > 1:
        relations.append(("linked", tensors))
    return relations


def _orders(tensors: list[Axes], first: Names, second: Names) -> tuple[Readings, Readings]:
    """Sources and targets of planes by the order of their axes.

    A square plane is read in both orders and written in one.
    """
    if first == second:
        straight = [tensor.plane(0) for tensor in tensors]
        turned = [tensor.plane(1) for tensor in tensors]
        return {ORDERS[0]: straight, ORDERS[1]: turned}, {ORDERS[0]: straight}

    planes: list[Readings] = []
    for tensor in tensors:
        order = int(tensor.of("out") != first)
        planes.append({ORDERS[order]: [tensor.plane(order)]})

    return _gather(planes), _gather(planes)


def _gather(readings: Sequence[Readings]) -> Readings:
    """All patterns of each view, views in a fixed order."""
    gathered: Readings = defaultdict(list)
    for reading in readings:
        for view, patterns in reading.items():
            gathered[view].extend(patterns)

    return {view: gathered[view] for view in sorted(gathered)}
