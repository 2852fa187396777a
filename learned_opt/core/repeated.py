"""Many calls of a compiled step, each of which goes on from what the one before has left.

Between two calls there are lists of tensors alone: trees are taken apart and put together once, and
the layouts that a graph relies on are looked at until they repeat themselves.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_structure, tree_unflatten

from learned_opt.core.compiled import Compiled, layout
from learned_opt.core.tree import Tree

Leaves = list[Tensor]


class Inputs(NamedTuple):
    """The further arguments of many calls.

    Args:
        rows: their leaves, one list for each call.
        structure: the tree of them, a list with a tree for each argument.
    """

    rows: list[Leaves]
    structure: TreeSpec

    @classmethod
    def of(cls, streams: Sequence[Tree]) -> "Inputs":
        """Those of one stream for each argument; the first axis of their leaves is the call."""
        leaves, structure = tree_flatten(list(streams))
        of_leaves = [leaf.unbind() for leaf in leaves]
        return cls([list(row) for row in zip(*of_leaves, strict=True)], structure)


class _Settled(NamedTuple):
    """A graph that leaves what it can be called with again, and the tree of what it returns."""

    graph: Callable[..., Leaves]
    result: TreeSpec


def repeat(
    step: Compiled,
    fixed: Any,
    carried: Any,
    inputs: Inputs,
    started_from: list[Leaves] | None = None,
) -> tuple[list[Leaves], Any]:
    """Call ``output, carried = step(fixed, carried, *inputs)`` for each of the inputs.

    Args:
        step: its second result is shaped like ``carried``; nothing of it is differentiated.
        fixed: the first argument of every call, a tree.
        carried: the second argument of the first call, a tree.
        inputs: the further arguments of all calls.
        started_from: gets the leaves of ``carried`` of every call, contiguous, where it is a list.

    Returns:
        tuple[list[Leaves], Any]: the leaves of the outputs of all calls, and what the last one has
        left.

    Raises:
        NotCompiledError: the step does not compile.
    """
    constants = tree_leaves(fixed)
    state, of_carried = tree_flatten(carried)
    num_carried = len(state)
    settled: _Settled | None = None

    outputs: list[Leaves] = []
    for row in inputs.rows:
        if started_from is not None:
            started_from.append([leaf.contiguous() for leaf in state])
        arguments = [*constants, *state, *row]
        if settled:
            results = settled.graph(*arguments)
            outputs.append(results[: len(results) - num_carried])
            state = results[len(results) - num_carried :]
            continue

        others = tree_unflatten(row, inputs.structure)
        structure = tree_structure((fixed, carried, *others))
        graph, result = step.graph(arguments, structure)
        before = (of_carried, *map(layout, state))
        output, carried = tree_unflatten(graph(*arguments), result)
        outputs.append(tree_leaves(output))

        state, of_carried = tree_flatten(carried)
        if before == (of_carried, *map(layout, state)):
            settled = _Settled(graph, result)
            carried = ()  # or its tensors would live until the last call

    if settled:
        _, carried = tree_unflatten([*outputs[-1], *state], settled.result)
    return outputs, carried
