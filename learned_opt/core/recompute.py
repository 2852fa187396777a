"""Recompute instead of remember: backpropagation through a step that keeps its inputs only.

``torch.utils.checkpoint`` cannot be used around a step that takes gradients itself by
``torch.func``: it works by hooks on saved tensors, which function transforms refuse, or, in its
older form, on flat tensors alone.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


def recompute(function: Callable[..., Any], *arguments: Any) -> Any:
    """``function(*arguments)``, whose backward pass runs it again.

    Args:
        function: pure; takes and returns trees of tensors.
        arguments: trees of tensors.

    >>> x = torch.tensor(3.0, requires_grad=True)
    >>> recompute(torch.square, x).backward()
    >>> x.grad
    tensor(6.)
    """
    leaves, structure = tree_flatten(arguments)
    outputs: list[TreeSpec] = []
    flat: Any = _Recompute.apply(function, structure, outputs, *leaves)
    return tree_unflatten(list(flat), outputs[0])


class _Recompute(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, function: Callable[..., Any], structure: TreeSpec, outputs: list, *leaves: Tensor
    ) -> Any:
        result, result_structure = tree_flatten(function(*tree_unflatten(list(leaves), structure)))
        outputs.append(result_structure)  # autograd functions can return flat tensors alone

        ctx.function = function
        ctx.structure = structure
        ctx.save_for_backward(*leaves)
        ctx.mark_non_differentiable(*(leaf for leaf in result if not leaf.is_floating_point()))
        return tuple(result)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        wanted = ctx.needs_input_grad[3:]
        leaves = []
        for saved, needs_grad in zip(ctx.saved_tensors, wanted, strict=True):
            leaves.append(saved.detach().requires_grad_(needs_grad))

        with torch.enable_grad():
            result, _ = tree_flatten(ctx.function(*tree_unflatten(leaves, ctx.structure)))

        # autograd.grad refuses outputs that need no gradient, such as counters
        outputs = []
        output_grads = []
        for output, gradient in zip(result, gradients, strict=True):
            if output.requires_grad:
                outputs.append(output)
                output_grads.append(gradient)

        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        input_grads = torch.autograd.grad(outputs, inputs, output_grads, allow_unused=True)
        remaining = iter(input_grads)
        aligned = [next(remaining) if needs_grad else None for needs_grad in wanted]
        return None, None, None, *aligned
