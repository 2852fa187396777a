"""Which site of a parameter an operation is: one rule for each kind of operation.

A rule gets one operation of a traced loss and returns the sites of the parameters that it reads;
those that it does not return are not covered.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from learned_opt.inner.parameter_views import Views, name_of
from learned_opt.optimizers.convolution_site import Convolution
from learned_opt.optimizers.routes import Route
from learned_opt.optimizers.sites import Entrywise, Lookup, Product, Site

Values = Mapping[fx.Node, Any]
Make = Callable[[Values, Tensor, Route], Site]
Turn = Callable[[Tensor], Tensor]


class Use(NamedTuple):
    """An operation that reads a parameter.

    Args:
        node: the operation.
        views: of the graph.
        shapes: of its tensors.
    """

    node: fx.Node
    views: Views
    shapes: Mapping[fx.Node, torch.Size]

    @property
    def operands(self) -> list[Any]:
        """The positional arguments."""
        return list(self.node.args)

    def argument(self, name: str) -> Any:
        """An argument by the name that the schema has for it."""
        for position, argument in enumerate(self.node.target._schema.arguments):  # pyright: ignore
            if argument.name != name:
                continue
            if position < len(self.node.args):
                return self.node.args[position]
            return self.node.kwargs.get(name, argument.default_value)
        raise KeyError(name)

    def is_reading(self, value: Any) -> bool:
        """Whether a value is a parameter seen through views."""
        return isinstance(value, fx.Node) and value in self.views.of

    def has_rows(self, value: Any) -> bool:
        """Whether a value can stand beside a parameter: it is no product of parameters alone."""
        if not isinstance(value, fx.Node):
            return True
        return value not in self.views.of and self.views.has_rows(value)


@dataclass(frozen=True)
class Finding:
    """A site of the graph.

    Args:
        reading: the value that comes from a parameter.
        make: ``(values, gradient of the result, route) -> site``.
        needed: values of the graph that ``make`` reads.
        turn: what the site does to the reading first, e.g. a transposition.
    """

    reading: fx.Node
    make: Make
    needed: tuple[fx.Node, ...] = ()
    turn: Turn | None = None


def _finding(reading: fx.Node, make: Make, needed: list[Any], turn: Turn | None = None) -> Finding:
    nodes = tuple(value for value in needed if isinstance(value, fx.Node))
    return Finding(reading, make, nodes, turn)


def _transposed(reading: Tensor) -> Tensor:
    return reading.mT


def _column(reading: Tensor) -> Tensor:
    return reading.unsqueeze(1)


def product(use: Use) -> list[Finding]:
    """``mm`` and ``bmm``."""
    left, right = use.operands[:2]
    return _product(use, left, right, 1)


def _product(use: Use, left: Any, right: Any, scale: Any) -> list[Finding]:
    if use.is_reading(right) and use.has_rows(left):

        def on_the_right(values: Values, gradient: Tensor, route: Route) -> Site:
            rows = values[left] if scale == 1 else scale * values[left]
            return Product(route, gradient, rows.shape[-2], rows)

        return [_finding(right, on_the_right, [left])]

    if use.is_reading(left) and use.has_rows(right):

        def on_the_left(values: Values, gradient: Tensor, route: Route) -> Site:
            columns = values[right] if scale == 1 else scale * values[right]
            return Product(route, gradient.mT, columns.shape[-1], columns.mT)

        return [_finding(left, on_the_left, [right], _transposed)]
    return []


def product_and_sum(use: Use) -> list[Finding]:
    """``addmm``: a bias and a product."""
    bias, left, right = use.operands[:3]
    findings = _product(use, left, right, use.argument("alpha"))
    if use.is_reading(bias):
        findings += _summand(use, bias, use.argument("beta"))
    return findings


def matrix_and_vector(use: Use) -> list[Finding]:
    """``mv``: a matrix is a weight of one row, a vector one of a single output."""
    matrix, vector = use.operands[:2]
    if use.is_reading(vector) and use.has_rows(matrix):

        def of_vector(values: Values, gradient: Tensor, route: Route) -> Site:
            rows = values[matrix]
            return Product(route, gradient.unsqueeze(1), len(rows), rows)

        return [_finding(vector, of_vector, [matrix], _column)]

    if use.is_reading(matrix) and use.has_rows(vector):

        def of_matrix(values: Values, gradient: Tensor, route: Route) -> Site:
            return Product(route, gradient.unsqueeze(0), 1, values[vector].unsqueeze(0))

        return [_finding(matrix, of_matrix, [vector], _transposed)]
    return []


def inner_product(use: Use) -> list[Finding]:
    """``dot``."""
    left, right = use.operands[:2]
    reading, other = (left, right) if use.is_reading(left) else (right, left)
    if not use.is_reading(reading) or not use.has_rows(other):
        return []

    def make(values: Values, gradient: Tensor, route: Route) -> Site:
        return Product(route, gradient.reshape(1, 1), 1, values[other].unsqueeze(0))

    return [_finding(reading, make, [other], _column)]


def _num_rows(use: Use, reading: fx.Node) -> int:
    return use.shapes[use.node].numel() // max(use.shapes[reading].numel(), 1)


def _summand(use: Use, reading: Any, scale: Any, channels_second: bool = False) -> list[Finding]:
    num_rows = _num_rows(use, reading)

    def make(values: Values, gradient: Tensor, route: Route) -> Site:
        del values
        if channels_second:
            gradient = gradient.movedim(1, -1)
        return Entrywise(route, gradient, num_rows, float(scale))

    return [_finding(reading, make, [])]


def addition(use: Use) -> list[Finding]:
    """``add`` and ``sub`` of a parameter and rows."""
    left, right = use.operands[:2]
    sign = -1 if name_of(use.node) == "sub" else 1
    if use.is_reading(left) and use.has_rows(right):
        return _summand(use, left, 1)
    if use.is_reading(right) and use.has_rows(left):
        return _summand(use, right, sign * use.argument("alpha"))
    return []


def scaling(use: Use) -> list[Finding]:
    """``mul`` of a parameter and rows."""
    left, right = use.operands[:2]
    reading, other = (left, right) if use.is_reading(left) else (right, left)
    if not use.is_reading(reading) or not use.has_rows(other):
        return []
    num_rows = _num_rows(use, reading)

    def make(values: Values, gradient: Tensor, route: Route) -> Site:
        return Entrywise(route, gradient, num_rows, values[other])

    return [_finding(reading, make, [other])]


def convolution(use: Use) -> list[Finding]:
    """A convolution, of which weight, bias or both are parameters."""
    images, weight, bias = use.operands[:3]
    findings = []
    if use.is_reading(weight) and use.has_rows(images):
        keys = ("stride", "padding", "dilation", "transposed", "output_padding", "groups")
        settings: dict[str, Any] = {key: use.argument(key) for key in keys}
        batch = use.shapes[images]
        transposed = settings["transposed"]
        # a transposed convolution reads each pixel of the image once
        over = batch if transposed else use.shapes[use.node]
        num_rows = batch[0] * over[2:].numel()

        def make(values: Values, gradient: Tensor, route: Route) -> Site:
            return Convolution(route, gradient, num_rows, values[images], **settings)

        findings.append(_finding(weight, make, [images]))
    if use.is_reading(bias):
        findings += _summand(use, bias, 1, channels_second=True)
    return findings


def embedding(use: Use) -> list[Finding]:
    """Rows of a table by index; an index that is looked up for padding has no gradient."""
    table, indices = use.operands[:2]
    if not use.is_reading(table) or use.argument("scale_grad_by_freq"):
        return []
    return _lookup(use, table, indices, 0, use.argument("padding_idx"))


def picks(use: Use) -> list[Finding]:
    """``index_select``, and ``index`` along the first axis alone."""
    table = use.operands[0]
    if not use.is_reading(table):
        return []
    if name_of(use.node) == "index_select":
        return _lookup(use, table, use.operands[2], use.argument("dim"), -1)

    indices = use.operands[1]
    if not isinstance(indices, list | tuple) or len(indices) != 1 or indices[0] is None:
        return []
    return _lookup(use, table, indices[0], 0, -1)


def _lookup(use: Use, table: Any, indices: Any, dim: int, padding: int) -> list[Finding]:
    num_rows = use.shapes[indices].numel()
    num_axes = len(use.shapes[indices])

    def turn(reading: Tensor) -> Tensor:
        return reading.movedim(dim, 0).flatten(1) if reading.ndim > 1 else reading.unsqueeze(1)

    def make(values: Values, gradient: Tensor, route: Route) -> Site:
        # the axes of the indices stand where the axis of the table stood
        axes = list(range(dim, dim + num_axes))
        rows = gradient.movedim(axes, list(range(num_axes))).reshape(num_rows, -1)
        return Lookup(route, rows, num_rows, values[indices].reshape(-1), padding)

    return [_finding(table, make, [indices], turn)]


RULES: dict[str, Callable[[Use], list[Finding]]] = {
    "mm": product,
    "bmm": product,
    "addmm": product_and_sum,
    "mv": matrix_and_vector,
    "dot": inner_product,
    "add": addition,
    "sub": addition,
    "mul": scaling,
    "convolution": convolution,
    "embedding": embedding,
    "index": picks,
    "index_select": picks,
}
