"""What antithetic pairs run with, and sums over them.

Legend: N pairs.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.base import State
from learned_opt.estimators.chain_gradients import ChainGradients
from learned_opt.estimators.population import UnrollStart


class Noise(NamedTuple):
    """What perturbs the pairs in one unroll; leaves ``(N, *shape)``.

    Args:
        eps: added to theta in the plus chains, subtracted in the minus chains.
        direction: the factor of the difference of the losses.
        memory: what the estimator's state keeps for the next unroll.
    """

    eps: Tree
    direction: Tree
    memory: State


class Perturbed(NamedTuple):
    """All that goes into one unroll.

    Args:
        start: of the N plus chains, the N minus chains and, if there are such, the N chains with
            theta itself.
        noise: of the pairs.
        restarted: the pairs that have just restarted, ``(N,)`` bool.
        unperturbed: what the unroll of the chains with theta itself gave.
    """

    start: UnrollStart
    noise: Noise
    restarted: Tensor
    unperturbed: ChainGradients | None


def predicted_difference(perturbed: Perturbed) -> Tensor:
    """``2 eps . p`` of every pair, ``(N,)``, for the gradient p of the chain with theta itself."""
    assert perturbed.unperturbed is not None, "a control runs the chains with theta itself"
    products = []
    for name, gradient in perturbed.unperturbed.gradients.items():
        product = gradient * perturbed.noise.eps[name]
        products.append(product.flatten(1).sum(1) if product.ndim > 1 else product)
    return 2 * torch.stack(products).sum(0)


def where_pairs(condition: Tensor, left: Tree, right: Tree) -> Tree:
    """``left`` for the pairs for which a condition holds, ``right`` for the others.

    Args:
        condition: ``(N,)`` bool.
        left: leaves ``(N, *shape)``.
        right: leaves ``(N, *shape)``.
    """

    def choose(a: Tensor, b: Tensor) -> Tensor:
        column = condition.to(a.device).reshape(-1, *[1] * (a.ndim - 1))
        return torch.where(column, a, b)

    return tree_map(choose, left, right)


def weighted_sum(weights: Tensor, values: Tree) -> Tree:
    """The sum over the pairs of their values times their weights.

    Args:
        weights: ``(N,)``.
        values: leaves ``(N, *shape)``.
    """
    return tree_map(lambda leaf: torch.tensordot(weights.to(leaf), leaf, 1), values)
