"""The gradient of each chain's meta-loss by theta, through one unroll.

Legend: N tasks that this process runs, R copies of each, M = R N chains.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.base import State
from learned_opt.estimators.population import Population, UnrollStart

BACKWARD = 2  # a backward pass through an inner step, in evaluations of its inner gradient
RECOMPUTED = 1  # what it costs more where the step is run again for it


class ChainGradients(NamedTuple):
    """What an unroll gives that is differentiated.

    Args:
        losses: meta-losses ``(R, N)``, nan where a chain is not finite.
        gradients: by theta of every chain, leaves ``(M, *shape)``.
        finite: whether all numbers of a chain's gradient are, ``(R, N)``.
        state: of the population after the unroll.
    """

    losses: Tensor
    gradients: Tree
    finite: Tensor
    state: State


@torch.enable_grad()
def chain_gradients(population: Population, start: UnrollStart, remat: bool) -> ChainGradients:
    """Unroll chains and backpropagate through the unroll, each chain by its own theta.

    The state in which the chains start is a constant in this.

    Args:
        population: runs the chains.
        start: where from, all copies of the tasks or some of them.
        remat: whether the backward pass computes every inner step again.
    """
    theta = tree_map(lambda leaf: leaf.detach().requires_grad_(), start.theta)  # (M, *shape)
    losses, after = population.run(start._replace(theta=theta), remat)  # (R, N)
    gradients = torch.autograd.grad(
        losses.sum(), tree.leaves(theta), allow_unused=True, materialize_grads=True
    )

    flat = [leaf.reshape(losses.numel(), -1) for leaf in gradients]
    return ChainGradients(
        losses=losses.detach(),
        gradients=dict(zip(theta, gradients, strict=True)),
        finite=torch.cat(flat, 1).isfinite().all(1).view_as(losses),
        state=tree_map(Tensor.detach, after),
    )


def cost_of_gradient(remat: bool) -> int:
    """Of an inner step and its share of the backward pass, in evaluations of inner gradients.

    The derivative of a function costs about twice the function beside the function itself.

    >>> cost_of_gradient(remat=True)
    4
    """
    return 1 + BACKWARD + RECOMPUTED * remat


def check_unroll_length(unroll_length: int) -> None:
    """Refuse unrolls of which no gradient can be taken.

    Raises:
        ValueError: it is 1.
    """
    if unroll_length == 1:
        raise ValueError(
            "unroll_length must be at least 2 for a gradient by backpropagation, got 1: theta acts "
            "after the first loss."
        )
