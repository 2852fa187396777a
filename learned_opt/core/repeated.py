"""Many calls of a compiled step, each of which goes on from what the one before has left.

Between two calls there are lists of tensors alone: trees are taken apart and put together once, and
the layouts that a graph relies on are looked at until they repeat themselves.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_leaves, tree_structure, tree_unflatten

from learned_opt.core.compiled import Compiled, layout
from learned_opt.core.tree import Tree


class _Settled(NamedTuple):
    """A graph that leaves what it can be called with again, and the tree of what it returns."""

    graph: Callable[..., list[Tensor]]
    result: TreeSpec


def repeat(
    step: Compiled, fixed: Tree, carried: Tree, streams: Sequence[Tree]
) -> tuple[list[Tensor], Tree]:
    """Call ``output, carried = step(fixed, carried, *inputs)`` for each input of the streams.

    Args:
        step: its first result is a tensor, the second one is shaped like ``carried``; nothing of
            it is differentiated.
        fixed: the first argument of every call.
        carried: the second argument of the first call.
        streams: one for each further argument; the first axis of their leaves is the call.

    Returns:
        tuple[list[Tensor], Tree]: the outputs of all calls, and what the last one has left.

    Raises:
        NotCompiledError: the step does not compile.
    """
    constants = tree_leaves(fixed)
    rows = [leaf.unbind() for leaf in tree_leaves(list(streams))]
    state = tree_leaves(carried)
    settled: _Settled | None = None

    outputs: list[Tensor] = []
    for inputs in zip(*rows, strict=True):
        arguments = [*constants, *state, *inputs]
        if settled:
            output, *state = settled.graph(*arguments)
            outputs.append(output)
            continue

        structure = tree_structure((fixed, carried, *streams))
        graph, result = step.graph(arguments, structure)
        output, carried = tree_unflatten(graph(*arguments), result)
        outputs.append(output)

        left = tree_leaves(carried)
        same_tree = structure == tree_structure((fixed, carried, *streams))
        if same_tree and list(map(layout, left)) == list(map(layout, state)):
            settled = _Settled(graph, result)
        state = left

    if settled:
        _, carried = tree_unflatten([outputs[-1], *state], settled.result)
    return outputs, carried
