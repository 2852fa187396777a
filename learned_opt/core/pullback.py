"""The backward pass of one step of a loop, a function of tensors like the step itself."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from learned_opt.core.tree import Tree

Gradients = tuple[list[Tensor], list[Tensor]]


class Pullback:
    """Takes gradients by what a step has left to gradients by what it started from.

    It runs the step again, so that nothing of the step needs to be kept but its arguments. Calls
    for the steps of a loop, the last one first, are the backward pass of the loop: each is called
    with what the one before has returned.

    Args:
        step: ``output, carried = step((parameters, constants), carried, *inputs)``, where the
            output is one tensor, and what it leaves has the keys and shapes of ``carried``, in the
            same order.

    >>> def step(fixed, carried, inputs):
    ...     (scale, _), sums = fixed, carried
    ...     return sums["x"] * 3, {"x": sums["x"] + scale["w"] * inputs["x"]}
    >>> one = torch.ones(())
    >>> fixed = ({"w": 2 * one}, {})
    >>> start = ([torch.zeros(())], [one])  # by the parameters, and by what the step has left
    >>> _, gradients = Pullback(step)(fixed, start, {"x": one}, {"x": 5 * one}, one)
    >>> gradients
    ([tensor(5.)], [tensor(4.)])
    """

    def __init__(self, step: Callable[..., tuple[Tensor, Tree]]) -> None:
        self.step = step

    def __call__(
        self, fixed: tuple[Tree, Tree], gradients: Gradients, carried: Tree, *inputs: Any
    ) -> tuple[tuple[()], Gradients]:
        """One step of the backward pass.

        Args:
            fixed: the step's first argument; gradients are by its parameters.
            gradients: by the floating-point parameters, summed over the later steps, and by the
                floating-point leaves of what this step leaves.
            carried: what the step started from.
            inputs: further arguments of the step; at last the gradient by its output.

        Returns:
            tuple[tuple[()], Gradients]: nothing, and the gradients with those of this step, by
            what it started from.
        """
        *step_inputs, of_output = inputs
        parameters, constants = fixed
        of_parameters, of_carried = gradients

        # gradients are by tensors of this call's own, whatever else the caller differentiates
        leaves, structure = tree_flatten((parameters, carried))
        sources = [leaf.detach().requires_grad_(leaf.is_floating_point()) for leaf in leaves]
        with torch.enable_grad():
            parameters, carried = tree_unflatten(sources, structure)
            output, after = self.step((parameters, constants), carried, *step_inputs)

        targets = [output, *floating(tree_leaves(after))]
        by_source = _gradients(targets, floating(sources), [of_output, *of_carried])
        num_parameters = len(of_parameters)
        summed = []
        for total, gradient in zip(of_parameters, by_source[:num_parameters], strict=True):
            summed.append(total + gradient)
        # one layout for all steps, so that all of them are one compiled function
        before = [gradient.contiguous() for gradient in by_source[num_parameters:]]
        return (), (summed, before)


def floating(leaves: Sequence[Tensor]) -> list[Tensor]:
    """The leaves that have gradients: no counters, no indices."""
    return [leaf for leaf in leaves if leaf.is_floating_point()]


def _gradients(
    targets: Sequence[Tensor], sources: Sequence[Tensor], of_targets: Sequence[Tensor]
) -> Sequence[Tensor]:
    """Gradients by the sources, zero where a target does not depend on them."""
    dependent = []
    of_dependent = []
    for target, gradient in zip(targets, of_targets, strict=True):
        if target.requires_grad:  # autograd refuses the others
            dependent.append(target)
            of_dependent.append(gradient)
    return torch.autograd.grad(
        dependent, sources, of_dependent, allow_unused=True, materialize_grads=True
    )
