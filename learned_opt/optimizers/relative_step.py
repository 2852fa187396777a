"""Steps in units of the size of a tensor, as VeLO and Celo take them, from clipped gradients."""

import torch
from torch import Tensor

from learned_opt.core.tree import Tree

LARGEST_GRADIENT = 1000.0


def clip_gradients(grads: Tree) -> Tree:
    """Gradients within 1000: a spike must not fill the averages for good."""
    return {name: grad.clamp(-LARGEST_GRADIENT, LARGEST_GRADIENT) for name, grad in grads.items()}


def relative_step(output: Tensor, param: Tensor, step_mult: float, exp_mult: float) -> Tensor:
    """A step down the direction that an MLP gives.

    Args:
        output: direction and logarithm of a factor, ``(*shape, 2)``.
        param: ``(*shape,)``.
        step_mult: of the direction.
        exp_mult: of the logarithm.
    """
    direction, magnitude = output.unbind(-1)
    size = torch.sqrt(param.square().mean() + 1e-9)
    return -step_mult * size * direction * torch.exp(exp_mult * magnitude)
