"""A pure function of trees, traced once to a flat graph of tensor operations and compiled.

Tracing first takes the function transforms (vmap, grad), the modules and the dicts out of what
``torch.compile`` sees: it captures the graph in half the time, and checks a call against a few
facts about tensors, not about a thousand Python objects.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar, cast

import torch
from torch import Tensor
from torch._guards import TracingContext, tracing
from torch._inductor import config as inductor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

from learned_opt.core.shared_loops import shared_outer_loops
from learned_opt.core.threads import FasterThreads, is_choice, uses_all_cores
from learned_opt.core.tracing import traced
from learned_opt.core.vector_isa import try_widest

log = logging.getLogger(__name__)

F = TypeVar("F", bound=Callable[..., Any])


class NotCompiledError(Exception):
    """A function does not compile."""


class Compiled:
    """A function that is compiled once for every layout of its arguments.

    Where compiling fails, it warns once and calls the function itself from then on.

    Args:
        function: takes and returns trees of tensors; draws nothing at random and changes nothing.
            Results have no gradient: a function that is differentiated has a ``Pullback``.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function = function
        self.failed = False
        self.graphs: dict[tuple[object, ...], tuple[Callable[..., Any], TreeSpec]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The same as ``function(*arguments)``, to rounding."""
        leaves, structure = tree_flatten(arguments)
        try:
            compiled, outputs = self.graph(leaves, structure)
            return tree_unflatten(compiled(*leaves), outputs)
        except NotCompiledError:
            return self.function(*arguments)

    def graph(
        self, leaves: list[Tensor], structure: TreeSpec
    ) -> tuple[Callable[..., list[Tensor]], TreeSpec]:
        """The compiled function of leaves for one layout, and the tree of what it returns.

        Args:
            leaves: of the arguments.
            structure: the tree of the arguments.

        Raises:
            NotCompiledError: it does not compile.
        """
        if self.failed:
            raise NotCompiledError("it has not compiled before.")

        key = (structure, *map(layout, leaves))
        if key not in self.graphs:
            # its errors are those of the function
            graph, outputs = trace(self.function, leaves, structure)
            try:
                self.graphs[key] = _compile(graph, leaves), outputs
            except Exception as error:  # whatever it is, the function itself runs
                self._give_up(error)
                raise NotCompiledError(str(error)) from error
        return self.graphs[key]

    def _give_up(self, error: Exception) -> None:
        lines = str(error).strip().splitlines()
        _warn_once(lines[0] if lines else type(error).__name__)
        self.failed = True


def uncompiled(function: F) -> F:
    """The function, which ``torch.compile`` of its caller leaves as it is."""
    return cast(F, torch.compiler.disable(function))  # torch's own hint loses the type of methods


def layout(leaf: Tensor) -> tuple[object, ...]:
    """Everything about a tensor that a compiled graph relies on."""
    return leaf.shape, leaf.stride(), leaf.dtype, leaf.device


def trace(
    function: Callable[..., Any], leaves: list[Tensor], structure: TreeSpec
) -> tuple[GraphModule, TreeSpec]:
    """Record the tensor operations of a function.

    Args:
        function: takes and returns trees of tensors.
        leaves: the tensors of its arguments, in the order of ``tree_flatten``.
        structure: the tree of its arguments.

    Returns:
        tuple[GraphModule, TreeSpec]: the graph, which takes the leaves of the arguments and returns
        those of the result; and the tree of the result.
    """
    results: list[TreeSpec] = []

    def flat(*values: Tensor) -> list[Tensor]:
        outputs, result = tree_flatten(function(*tree_unflatten(values, structure)))
        results.append(result)
        return outputs

    # one context for all values; else every operation makes one of its own
    context = TracingContext(FakeTensorMode())
    with tracing(context):
        graph = traced(flat, *[leaf.detach() for leaf in leaves])
    _reshape_in_place_of_views(graph)

    return graph, results[0]


def _reshape_in_place_of_views(graph: GraphModule) -> None:
    """Let views copy where they must.

    Inductor plans strides by its own rules, which for a few operations are not those of the tensors
    of the trace (``cat`` with an empty tensor, as caches of keys and values do it): a view that was
    possible there may not be possible here.
    """
    views = graph.graph.find_nodes(op="call_function", target=torch.ops.aten.view.default)
    for node in views:
        node.target = torch.ops.aten.reshape.default
    if views:
        graph.recompile()


def _compile(graph: GraphModule, leaves: list[Tensor]) -> Callable[..., Any]:
    """Make a traced graph fast for arguments of this layout."""
    if not capturable(leaves):
        try_widest()
    # Inductor alone: torch.compile would trace the graph once more.
    # Unless it uses all cores, generated code asks for a fixed number of threads
    dynamic = inductor.patch({"cpp.dynamic_threads": is_choice() and not uses_all_cores()})
    with dynamic, shared_outer_loops():
        compiled: Any = torch._inductor.standalone_compile(
            graph, [leaf.detach() for leaf in leaves], dynamic_shapes="from_example_inputs"
        )
    return captured(compiled, leaves) if capturable(leaves) else FasterThreads(compiled, leaves)


def capturable(leaves: list[Tensor]) -> bool:
    """Whether a call can become a CUDA graph: all of it must be on one CUDA device."""
    return {leaf.device.type for leaf in leaves} == {"cuda"}


def captured(
    function: Callable[..., list[Tensor]], leaves: list[Tensor]
) -> Callable[..., list[Tensor]]:
    """Turn a function of tensors into one CUDA graph.

    A call costs one launch then, not one for every kernel. Arguments are copied into the graph's
    buffers and results out of them, so what a caller keeps is never overwritten.
    """
    examples = tuple(leaf.clone() for leaf in leaves)
    replay: Any = torch.cuda.make_graphed_callables(function, examples)
    return lambda *values: [output.clone() for output in replay(*values)]


@cache
def _warn_once(reason: str) -> None:
    log.warning(
        "torch.compile failed, running eagerly (same results, several times slower): %s", reason
    )
