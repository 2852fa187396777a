"""Which values of a traced loss are a parameter seen through views, and how they come about."""

import operator
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx.node import map_arg

CUTS = {"select", "slice", "split", "split_with_sizes", "unbind"}
SHAPES = {"_unsafe_view", "permute", "reshape", "squeeze", "t", "transpose", "unsqueeze", "view"}
COPIES = {"_to_copy", "alias", "clone", "contiguous", "expand", "lift_fresh_copy"}
SHIFTS = {"add", "sub"}  # by a constant, which changes no gradient
SCALINGS = {"mul", "div"}
PICKS = {"index", "index_select", "embedding"}  # by constant indices


@dataclass(frozen=True)
class ParameterView:
    """A value of the graph whose entries come from one parameter.

    Args:
        parameter: its name.
        source: its placeholder.
        steps: the operations in between.
        needed: values that these operations read.
    """

    parameter: str
    source: fx.Node
    steps: tuple[fx.Node, ...] = ()
    needed: tuple[fx.Node, ...] = ()

    def extended(self, node: fx.Node) -> "ParameterView":
        """This view, seen through one more operation."""
        known = (self.source, *self.steps)
        more = [other for other in node.all_input_nodes if other not in known]
        return ParameterView(
            self.parameter, self.source, (*self.steps, node), (*self.needed, *more)
        )

    def replay(self, param: Tensor, power: int, values: Mapping[fx.Node, Any]) -> Tensor:
        """The view of a parameter.

        Args:
            param: the parameter.
            power: that constants which the view multiplies with are raised to.
            values: of ``needed``.
        """
        env: dict[fx.Node, Any] = {self.source: param}

        def value_of(node: fx.Node) -> Any:
            return env[node] if node in env else values[node]

        for node in self.steps:
            args = map_arg(node.args, value_of)
            kwargs = map_arg(node.kwargs, value_of)
            if name_of(node) in SCALINGS:
                args = _raised(node, args, env, power)
            env[node] = node.target(*args, **kwargs)  # pyright: ignore[reportCallIssue]
        return env[self.steps[-1]] if self.steps else param


def _raised(node: fx.Node, args: Any, env: Mapping[fx.Node, Any], power: int) -> list[Any]:
    """The arguments of a scaling, those that are constants raised to a power."""
    raised = []
    for argument, value in zip(node.args, args, strict=True):
        is_view = isinstance(argument, fx.Node) and argument in env
        raised.append(value if is_view else value**power)
    return raised


def name_of(node: fx.Node) -> str:
    """An operation without namespace and overload, e.g. ``mm``; empty for what is none."""
    if node.target is operator.getitem:
        return "getitem"
    if isinstance(node.target, torch._ops.OpOverload):
        return node.target._schema.name.split("::")[1]
    return ""


class Views:
    """The views of parameters in a graph, and on what its other values depend.

    Args:
        graph: of a loss; its first placeholders are the parameters.
        names: of the parameters.
        batch: placeholders of the batch.
    """

    def __init__(self, graph: fx.Graph, names: list[str], batch: set[fx.Node]) -> None:
        self.of: dict[fx.Node, ParameterView] = {}
        self.reads_params: set[fx.Node] = set()
        self.reads_batch: set[fx.Node] = set()

        placeholders = graph.find_nodes(op="placeholder")
        for name, node in zip(names, placeholders, strict=False):
            self.of[node] = ParameterView(name, node)
            self.reads_params.add(node)
        self.reads_batch.update(batch)
        for node in graph.nodes:
            if node.op == "call_function":
                self._visit(node)

    def _visit(self, node: fx.Node) -> None:
        sources = node.all_input_nodes
        if self.reads_batch.intersection(sources):
            self.reads_batch.add(node)
        # what is detached has no gradient: a constant of this step
        if name_of(node) == "detach" or not self.reads_params.intersection(sources):
            return

        self.reads_params.add(node)
        viewed = [source for source in sources if source in self.of]
        others = [source for source in sources if source not in self.of]
        is_view = len(viewed) == 1 and all(self.is_constant(other) for other in others)
        if is_view and _keeps_entries(node, viewed[0]):
            self.of[node] = self.of[viewed[0]].extended(node)

    def is_constant(self, node: fx.Node) -> bool:
        """Whether a value depends on neither parameters nor the batch."""
        return node not in self.reads_params and node not in self.reads_batch

    def has_rows(self, node: fx.Node) -> bool:
        """Whether a value may have rows of the batch, or is a constant in their place."""
        return node in self.reads_batch or node not in self.reads_params


def _keeps_entries(node: fx.Node, viewed: fx.Node) -> bool:
    """Whether each entry of the result comes from one entry of what is viewed, scaled at most."""
    name = name_of(node)
    if name in ("getitem", "neg"):
        return True
    if node.args[0] is not viewed:  # the first argument is what is cut, picked from, divided
        return name == "mul" or (name == "add" and not node.kwargs)
    return name in CUTS | SHAPES | COPIES | SHIFTS | SCALINGS | PICKS
