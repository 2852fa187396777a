"""Recompute instead of remember: backpropagation through a step that keeps its inputs only.

``torch.utils.checkpoint`` cannot be used around a step that takes gradients itself by ``torch.func``: it works
by hooks on saved tensors, which function transforms refuse, or, in its older form, on flat tensors alone.
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
        flat, spec = tree_flatten(function(*tree_unflatten(list(leaves), structure)))
        outputs.append(spec)
        ctx.function, ctx.structure = function, structure
        ctx.save_for_backward(*leaves)
        ctx.mark_non_differentiable(*(leaf for leaf in flat if not leaf.is_floating_point()))
        return tuple(flat)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> Any:
        wanted = ctx.needs_input_grad[3:]
        leaves = [
            leaf.detach().requires_grad_(want)
            for leaf, want in zip(ctx.saved_tensors, wanted, strict=True)
        ]
        with torch.enable_grad():
            flat, _ = tree_flatten(ctx.function(*tree_unflatten(leaves, ctx.structure)))
        reached = [
            (out, grad) for out, grad in zip(flat, gradients, strict=True) if out.requires_grad
        ]
        outputs, given = [out for out, _ in reached], [grad for _, grad in reached]
        inputs = [leaf for leaf in leaves if leaf.requires_grad]
        found = iter(torch.autograd.grad(outputs, inputs, given, allow_unused=True))
        return None, None, None, *(next(found) if want else None for want in wanted)
