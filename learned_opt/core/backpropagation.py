"""Backpropagation through many calls of a compiled step: a loop forward, a loop backward.

Both loops are ``repeat``. The first keeps what each step has started from, and the second runs each
step again and its backward pass with it, as one compiled function: autograd sees all of it as one
operation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import compress
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_leaves, tree_unflatten

from learned_opt.core.compiled import Compiled, NotCompiledError
from learned_opt.core.pullback import Gradients, floating
from learned_opt.core.repeated import Inputs, Leaves, repeat
from learned_opt.core.tree import Tree


def repeat_differentiably(
    step: Compiled, pullback: Compiled, fixed: tuple[Tree, Tree], carried: Tree, inputs: Inputs
) -> tuple[Tensor, Tree]:
    """``repeat``, through which gradients flow to the parameters and to what is carried.

    Args:
        step: as ``Pullback`` takes it.
        pullback: that of the step; where it does not compile, the backward pass runs eagerly.
        fixed: parameters, and constants.
        carried: the second argument of the first call.
        inputs: the further arguments of all calls, constants as well.

    Returns:
        tuple[Tensor, Tree]: outputs, the first axis of which is the call; and what the last call
        has left.

    Raises:
        NotCompiledError: the step does not compile.
    """
    parameters, constants = fixed
    leaves, structure = tree_flatten((parameters, carried))
    loop = _Loop(step, pullback, constants, inputs, structure)
    results: Any = _Repeated.apply(loop, *leaves)

    outputs, *left = results
    assert loop.of_left is not None
    return outputs, tree_unflatten(left, loop.of_left)


@dataclass(eq=False)
class _Loop:
    """What the two loops share.

    Args:
        step: of the loop.
        pullback: that of the step.
        constants: of every call.
        inputs: of every call.
        structure: the tree of parameters and of what is carried.
        of_left: the tree of what the last call has left.
    """

    step: Compiled
    pullback: Compiled
    constants: Tree
    inputs: Inputs
    structure: TreeSpec
    of_left: TreeSpec | None = None

    def forward(self, leaves: Leaves) -> tuple[list[Leaves], Leaves, list[Leaves]]:
        """Outputs of all calls, what the last one leaves, and what each has started from."""
        parameters, carried = tree_unflatten(leaves, self.structure)
        started_from: list[Leaves] = []
        outputs, carried = repeat(
            self.step, (parameters, self.constants), carried, self.inputs, started_from
        )
        left, self.of_left = tree_flatten(carried)
        return outputs, left, started_from

    def backward(
        self,
        leaves: Leaves,
        started_from: list[Leaves],
        of_outputs: Tensor,
        of_left: Sequence[Tensor | None],
    ) -> Leaves:
        """Gradients by the floating-point leaves."""
        parameters, carried = tree_unflatten(leaves, self.structure)
        fixed = (parameters, self.constants)

        def at_the_end() -> Gradients:
            totals = _zeros(floating(tree_leaves(parameters)))
            return totals, _contiguous(of_left, floating(tree_leaves(carried)))

        of_each = of_outputs.contiguous().unbind()
        calls = zip(started_from, self.inputs.rows, of_each, strict=True)
        rows = [[*state, *row, of_output] for state, row, of_output in calls][::-1]
        others = tree_unflatten(self.inputs.rows[0], self.inputs.structure)
        _, structure = tree_flatten([carried, *others, of_each[0]])
        inputs = Inputs(rows, structure)

        try:  # nothing here holds what the end starts from, so that it goes when it is used
            _, gradients = repeat(self.pullback, fixed, at_the_end(), inputs)
        except NotCompiledError:  # it has said so
            gradients = at_the_end()
            for row in rows:
                _, gradients = self.pullback(fixed, gradients, *tree_unflatten(row, structure))
        return [*gradients[0], *gradients[1]]


def _zeros(like: Leaves) -> Leaves:
    return [leaf.new_zeros(leaf.shape) for leaf in like]


def _contiguous(gradients: Sequence[Tensor | None], like: Leaves) -> Leaves:
    """The gradients, zero where there is none."""
    filled = []
    for gradient, zeros in zip(gradients, _zeros(like), strict=True):
        filled.append(zeros if gradient is None else gradient.contiguous())
    return filled


class _Repeated(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: _Loop, *leaves: Tensor) -> Any:
        constants = [leaf.detach() for leaf in leaves]
        outputs, left, started_from = loop.forward(constants)

        ctx.loop = loop
        ctx.leaves = constants
        ctx.started_from = started_from
        counters = [leaf for leaf in left if not leaf.is_floating_point()]
        ctx.mark_non_differentiable(*counters)
        ctx.has_gradient = [leaf.is_floating_point() for leaf in left]
        ctx.set_materialize_grads(False)
        stacked = torch.stack([output for (output,) in outputs])
        ctx.no_gradient = stacked.new_zeros(1).expand(stacked.shape)
        return stacked, *left

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]  # by the decorator
        ctx: Any, *gradients: Tensor | None
    ) -> Any:
        of_outputs, *of_left = gradients
        if of_outputs is None:
            of_outputs = ctx.no_gradient
        of_floating = list(compress(of_left, ctx.has_gradient))
        of_leaves = ctx.loop.backward(ctx.leaves, ctx.started_from, of_outputs, of_floating)

        remaining = iter(of_leaves)
        aligned = [next(remaining) if leaf.is_floating_point() else None for leaf in ctx.leaves]
        return None, *aligned
