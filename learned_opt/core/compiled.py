"""A pure function of trees, traced once to a flat graph of tensor operations and compiled.

Tracing first takes the function transforms (vmap, grad), the modules and the dicts out of what ``torch.compile`` sees:
it captures the graph in half the time, and checks a call against a few facts about tensors, not about a thousand
Python objects.
"""

import logging
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch._dynamo.exc import TorchDynamoException
from torch._guards import TracingContext, tracing
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

log = logging.getLogger(__name__)


class Compiled:
    """``function``, compiled for every layout of its arguments; eager for good, with one warning, where that fails.

    Args:
        function: takes and returns trees of tensors; draws nothing at random and changes nothing.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.failed = function, False
        self.graphs: dict[tuple[object, ...], tuple[Callable[..., Any], TreeSpec]] = {}

    def __call__(self, *arguments: Any) -> Any:
        """The same as ``function(*arguments)``, to rounding."""
        if self.failed:
            return self.function(*arguments)
        leaves, structure = tree_flatten(arguments)
        layout = (
            structure,
            *((x.shape, x.stride(), x.dtype, x.device, x.requires_grad) for x in leaves),
        )
        try:
            if layout not in self.graphs:
                graph, outputs = trace(self.function, leaves, structure)
                self.graphs[layout] = _compile(graph, leaves), outputs
            graph, outputs = self.graphs[layout]
            return tree_unflatten(graph(*leaves), outputs)
        except TorchDynamoException as error:
            _warn_once(str(error).strip().splitlines()[0])
            self.failed = True
            return self.function(*arguments)


def trace(
    function: Callable[..., Any], leaves: list[Tensor], structure: TreeSpec
) -> tuple[GraphModule, TreeSpec]:
    """The graph of a function, leaves of its arguments in and leaves of its result out; and the tree of the result."""
    results: list[TreeSpec] = []

    def flat(*values: Tensor) -> list[Tensor]:
        outputs, result = tree_flatten(function(*tree_unflatten(values, structure)))
        results.append(result)
        return outputs

    with tracing(
        TracingContext(FakeTensorMode())
    ):  # one for all values; else every operation makes one of its own
        return make_fx(flat)(*[leaf.detach() for leaf in leaves]), results[0]


def _compile(graph: GraphModule, leaves: list[Tensor]) -> Callable[..., Any]:
    """By Inductor alone where nothing is to be differentiated: ``torch.compile`` would trace the graph once more."""
    if any(leaf.requires_grad for leaf in leaves):
        return torch.compile(graph, dynamic=False, fullgraph=True)
    compiled = torch._inductor.standalone_compile(
        graph, [*leaves], dynamic_shapes="from_example_inputs"
    )
    return captured(compiled, leaves) if capturable(leaves) else compiled


def capturable(leaves: list[Tensor]) -> bool:
    """Whether a call can become a CUDA graph: all of it must be on one CUDA device."""
    return {leaf.device.type for leaf in leaves} == {"cuda"}


def captured(
    function: Callable[..., list[Tensor]], leaves: list[Tensor]
) -> Callable[..., list[Tensor]]:
    """A function of tensors as one CUDA graph, so that a call costs one launch and not one for every kernel.

    Arguments are copied into the graph's own buffers and results out of them: what a caller keeps is never overwritten.
    """
    replay: Any = torch.cuda.make_graphed_callables(
        function, tuple(leaf.clone() for leaf in leaves)
    )
    return lambda *values: [output.clone() for output in replay(*values)]


@cache
def _warn_once(reason: str) -> None:
    log.warning(
        "torch.compile failed, running eagerly (same results, several times slower): %s", reason
    )
