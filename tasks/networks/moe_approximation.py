"""Nearest-prototype mixtures that approximate a given function to a given error, and their sizes.

Legend: n inputs, L experts, P parameters of an expert, B examples, O outputs.
"""

from collections.abc import Callable
from math import ceil, isclose, sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from tasks.networks.base import check_sizes
from tasks.networks.moe import NearestPrototypeMoE
from tasks.networks.prototypes import tree_height

MAX_EXPERTS = 10**6

Function = Callable[[Tensor], Tensor]  # (B, n) -> (B, O)


class Plan(NamedTuple):
    """Sizes of a mixture, up to constant factors.

    Args:
        num_experts: L.
        params_per_expert: P, what one input loads.
        total_params: L * P, what is stored.
        tree_height: levels of the routing tree.
    """

    num_experts: int
    params_per_expert: int
    total_params: int
    tree_height: int


def plan(eps: float, num_inputs: int, alpha: float = 1.0, r: float = 0.0, arity: int = 2) -> Plan:
    """How many experts of which size approximate an alpha-Hoelder function on [0, 1]^n to eps.

    P = eps^-r and L = eps^-(n / alpha - 2 r): with r = 0 the mixture is piecewise constant, with
    r = n / (2 alpha) it is a single network.

    Args:
        eps: uniform error, between 0 and 1.
        num_inputs: n.
        alpha: Hoelder exponent, in (0, 1].
        r: trades the number of experts against their size, in [0, n / (2 alpha)].
        arity: children of a node of the routing tree.

    Raises:
        ValueError: a value is out of its range.

    Source: rates that we rebuilt from the abstracts of Kratsios et al. 2024 (arXiv 2402.03460),
    which give the end points; all constants are taken as 1.

    >>> plan(eps=0.1, num_inputs=8, r=1.0)
    Plan(num_experts=1000000, params_per_expert=10, total_params=10000000, tree_height=20)
    """
    check_sizes(num_inputs=num_inputs)
    if not 0 < eps < 1:
        raise ValueError(f"eps must be between 0 and 1, got {eps}.")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}.")

    largest_r = num_inputs / (2 * alpha)
    if not 0 <= r <= largest_r:
        raise ValueError(f"r must be between 0 and n / (2 alpha) = {largest_r:g}, got {r}.")

    num_experts = _round_up(eps ** -(num_inputs / alpha - 2 * r))
    params_per_expert = _round_up(eps**-r)
    return Plan(
        num_experts,
        params_per_expert,
        num_experts * params_per_expert,
        tree_height(num_experts, arity),
    )


def fit_lipschitz(
    function: Function,
    eps: float,
    num_inputs: int,
    lipschitz: float = 1.0,
    alpha: float = 1.0,
    tree_arity: int | None = None,
) -> NearestPrototypeMoE:
    """A mixture of constant experts within eps of a function everywhere on [0, 1]^n.

    Prototypes are the centres of a grid. No point is farther than delta from one of them, where
    lipschitz * delta^alpha = eps.

    Args:
        function: ``(B, n) -> (B, O)``.
        eps: uniform error of each output.
        num_inputs: n.
        lipschitz: least M with ``|f(x) - f(y)| <= M ||x - y||^alpha``.
        alpha: Hoelder exponent, in (0, 1].
        tree_arity: of the routing tree; None compares all prototypes.

    Raises:
        ValueError: a value is out of its range, or the error needs more than ``MAX_EXPERTS``.

    Source: a net of centres as in Kratsios et al. 2024 (arXiv 2402.03460), here a grid, with the
    simplest experts (r = 0 of ``plan``); the count of cells is ours.

    >>> mixture = fit_lipschitz(lambda x: x.abs(), eps=0.25, num_inputs=1)
    >>> mixture.num_experts
    2
    """
    if eps <= 0 or lipschitz <= 0 or not 0 < alpha <= 1:
        raise ValueError(
            "eps and lipschitz must be positive and alpha in (0, 1], "
            f"got {eps}, {lipschitz} and {alpha}."
        )

    delta = (eps / lipschitz) ** (1 / alpha)
    return fit_grid(function, num_inputs, _cells(num_inputs, delta), 0, tree_arity)


def fit_smooth(
    function: Function,
    eps: float,
    num_inputs: int,
    curvature: float,
    tree_arity: int | None = None,
) -> NearestPrototypeMoE:
    """A mixture of affine experts within eps of a C^2 function everywhere on [0, 1]^n.

    Each expert is the first-order Taylor expansion at the centre of its cell.

    Args:
        function: ``(B, n) -> (B, O)``, differentiable.
        eps: uniform error of each output.
        num_inputs: n.
        curvature: bound of the spectral norm of the Hessian of each output.
        tree_arity: of the routing tree; None compares all prototypes.

    Raises:
        ValueError: a value is out of its range, or the error needs more than ``MAX_EXPERTS``.

    Source: ours, by Taylor's theorem; the paper's experts are general MLPs.
    """
    if eps <= 0 or curvature <= 0:
        raise ValueError(f"eps and curvature must be positive, got {eps} and {curvature}.")

    delta = sqrt(2 * eps / curvature)
    return fit_grid(function, num_inputs, _cells(num_inputs, delta), 1, tree_arity)


@torch.no_grad()
def fit_grid(
    function: Function,
    num_inputs: int,
    cells: int,
    depth: int,
    tree_arity: int | None = None,
) -> NearestPrototypeMoE:
    """Experts on a grid of equal cells: the function's value at the centre, or its tangent there.

    Args:
        function: ``(B, n) -> (B, O)``; differentiable for tangents.
        num_inputs: n.
        cells: cells along each axis. With a routing tree they are rounded up to a power of its
            arity: then the cells nest, and the tree finds the nearest prototype.
        depth: 0 for values, 1 for tangents.
        tree_arity: of the routing tree; None compares all prototypes.

    Raises:
        ValueError: a size is below 1, or there would be more than ``MAX_EXPERTS`` cells.
    """
    check_sizes(num_inputs=num_inputs, cells=cells)
    if tree_arity is not None:
        cells = tree_arity ** tree_height(cells, tree_arity)
    if cells**num_inputs > MAX_EXPERTS:
        raise ValueError(
            f"{cells}^{num_inputs} experts are needed, at most {MAX_EXPERTS} are made: raise eps."
        )

    ticks = (torch.arange(cells) + 0.5) / cells
    grid = torch.cartesian_prod(*[ticks] * num_inputs).reshape(-1, num_inputs)  # (L, n)
    num_outputs = function(grid[:1]).shape[-1]
    mixture = NearestPrototypeMoE(
        num_inputs, num_outputs, len(grid), depth=depth, tree_arity=tree_arity
    )
    mixture.set_prototypes(grid)

    centres = mixture.prototypes.detach()  # in the order of the tree
    offsets = function(centres)  # (L, O)
    if depth:
        tangents = _jacobians(function, centres)  # (L, O, n)
        mixture.weights[0].copy_(tangents)
        offsets = offsets - (tangents @ centres.unsqueeze(-1)).squeeze(-1)
    mixture.biases[0].copy_(offsets)
    return mixture


def _jacobians(function: Function, points: Tensor) -> Tensor:
    """Jacobian at each point, ``(L, n) -> (L, O, n)``."""

    def at_one_point(point: Tensor) -> Tensor:
        return function(point.unsqueeze(0)).squeeze(0)

    return vmap(jacrev(at_one_point))(points)


def _cells(num_inputs: int, delta: float) -> int:
    """Fewest cells along an axis in which no point is farther than delta from a centre."""
    return _round_up(sqrt(num_inputs) / (2 * delta))


def _round_up(value: float) -> int:
    """The least integer not below a value, forgiving the last digits of a power."""
    nearest = round(value)
    return nearest if isclose(value, nearest, rel_tol=1e-9) else ceil(value)
