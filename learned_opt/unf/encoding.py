"""Programs of layers as numbers, in the order in which ``program.h`` reads them."""

from collections.abc import Iterator, Mapping
from itertools import chain
from math import prod

import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.unf.plan import Plan
from learned_opt.unf.program import Product, Program, Rows, Shape, Walk


def encode(spec: PermutationSpec, plan: Plan, shapes: Mapping[str, Shape]) -> list[int]:
    """The program of a plan on parameters of a network.

    Args:
        spec: says how the tensors of the plan lie in the parameters.
        plan: of the layers.
        shapes: of the parameters.

    Returns:
        list[int]: numbers of rows, then tensors, parameters, walks, groups and products, each a
        list behind its length.
    """
    tensors = _views(spec, shapes)
    program = Program(plan, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    spans, copies, num_rows = _features(spec, program, tensors, shapes)

    num_reduced = sum(not product.output.whole for product in program.products)
    numbers = [num_rows, program.num_source_rows, program.num_target_rows, num_reduced]
    starts = [(program.starts[name], prod(shape)) for name, shape in program.shapes.items()]
    for pairs in (starts, spans):
        numbers += [len(pairs), *chain.from_iterable(pairs)]
    for walks in (copies, program.reads, program.merges):
        numbers += [len(walks), *chain.from_iterable(map(_walk, walks))]

    numbers.append(len(plan.groups))
    for group, sources in zip(plan.groups, program.sources, strict=True):
        numbers += [len(group.signature), len(group.targets)]
        numbers += _list_of_rows(sources)
    products = chain.from_iterable(map(_product, program.products))
    return [*numbers, len(program.products), *products]


def _views(spec: PermutationSpec, shapes: Mapping[str, Shape]) -> dict[str, Tensor]:
    """Tensors without numbers, whose strides tell how they lie in their parameters."""
    with _disable_current_modes():  # a trace around it has nothing to record here
        params = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
        return spec.view(params)


def _features(
    spec: PermutationSpec,
    program: Program,
    tensors: Mapping[str, Tensor],
    shapes: Mapping[str, Shape],
) -> tuple[list[tuple[int, int]], list[Walk], int]:
    """Where the features of each parameter are written.

    Returns:
        tuple[list[tuple[int, int]], list[Walk], int]: first row and number of entries of each
        parameter; walks that copy the pieces of those that are cut; number of rows of both.
    """
    starts: dict[str, int] = {}
    num_rows = program.num_rows
    copies = []
    for number, (name, tensor) in enumerate(tensors.items()):
        owner = spec.layout.owner(name)
        if tensor.numel() == prod(shapes[owner]):
            starts[owner] = program.starts[name]
            continue

        if owner not in starts:
            starts[owner] = num_rows
            num_rows += prod(shapes[owner])
        source = Rows(True, starts[owner] + int(tensor.storage_offset()), tensor.stride())
        target = Rows(True, program.starts[name], tensor.contiguous().stride())
        sizes = tuple(tensor.shape)
        copies.append(Walk(number, sizes, source, target, tensor.numel(), 1))

    spans = [(starts[name], prod(shape)) for name, shape in shapes.items()]
    return spans, copies, num_rows


def _rows(rows: Rows) -> list[int]:
    return [int(rows.whole), rows.start, *rows.strides]


def _list_of_rows(many: list[Rows] | tuple[Rows, ...]) -> list[int]:
    return [len(many), *chain.from_iterable(map(_rows, many))]


def _walk(walk: Walk) -> Iterator[int]:
    yield from (walk.tensor, len(walk.sizes), walk.fresh, walk.divisor)
    yield from walk.sizes
    yield from _rows(walk.source)
    yield from _rows(walk.target)


def _product(product: Product) -> Iterator[int]:
    yield from (product.group, product.target, product.tensor, len(product.sizes))
    yield from product.sizes
    yield from product.order
    yield from _rows(product.output)
    yield from _list_of_rows(product.addends)
