"""A trace of tensor operations, in which code may look at the values of constants."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.fx import GraphModule, Node
from torch.fx.experimental.proxy_tensor import make_fx


def traced(
    function: Callable[..., Any], *arguments: Any, decompositions: Mapping[Any, Any] | None = None
) -> GraphModule:
    """Record the tensor operations of a function.

    Code may decide by the value of a tensor that no argument changes, as models of Hugging Face
    do by positions that they have counted: it decides alike in every call.

    Args:
        function: takes trees of tensors.
        arguments: of it.
        decompositions: operation -> function that does the same by simpler ones.

    Raises:
        RuntimeError: it decides by the value of an argument, or takes a number out of one.

    >>> def doubled(x):
    ...     return 2 * x if torch.ones(3).all() else x
    >>> traced(doubled, torch.ones(2))(torch.ones(2))
    tensor([2., 2.])
    """
    table: Any = decompositions
    # torch's own refusal does not ask what the value depends on
    graph = make_fx(function, table, _error_on_data_dependent_ops=False)(*arguments)

    changing: set[Node] = set()  # what arguments change
    values: list[Node] = []
    for node in graph.graph.nodes:
        if node.op == "placeholder" or changing.intersection(node.all_input_nodes):
            changing.add(node)
        if _is_value(node):
            values.append(node)

    if changing.intersection(values):
        raise RuntimeError(
            "data-dependent control flow: a number is taken out of a tensor that the arguments "
            "change."
        )
    for node in values:  # nothing reads them: the code has got a plain number
        graph.graph.erase_node(node)
    if values:
        graph.graph.eliminate_dead_code()
        graph.recompile()
    return graph


def _is_value(node: Node) -> bool:
    """Whether an operation gives a number to the code, and no tensor."""
    tags = getattr(node.target, "tags", ())
    return node.op == "call_function" and torch.Tag.data_dependent_output in tags
