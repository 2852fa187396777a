"""Nearest-prototype mixtures that approximate a given function to a given error, their sizes and their capacity.

Legend: n inputs, L experts, P parameters of an expert, m points.
"""

from collections.abc import Callable
from itertools import accumulate
from math import ceil, e, isclose, log2, sqrt
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import jacrev, vmap

from tasks.networks.base import check_sizes
from tasks.networks.moe import NearestPrototypeMoE
from tasks.networks.prototypes import tree_height

MAX_EXPERTS = 10**6


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

    P = eps^-r and L = eps^-(n / alpha - 2 r): r = 0 is piecewise constant, r = n / (2 alpha) a single network.

    Args:
        eps: uniform error, between 0 and 1.
        num_inputs: n.
        alpha: Hoelder exponent, in (0, 1].
        r: trades the number of experts against their size, in [0, n / (2 alpha)].
        arity: children of a node of the routing tree.

    Raises:
        ValueError: a value is out of its range.

    Source: rates rebuilt from the abstracts of Kratsios et al. 2024 (arXiv 2402.03460), which give the end points;
        all constants are taken as 1.
    """
    check_sizes(num_inputs=num_inputs)
    if not 0 < eps < 1:
        raise ValueError(f"eps must be between 0 and 1, got {eps}.")
    if not 0 < alpha <= 1:
        raise ValueError(f"alpha must be in (0, 1], got {alpha}.")
    if not 0 <= r <= num_inputs / (2 * alpha):
        raise ValueError(
            f"r must be between 0 and n / (2 alpha) = {num_inputs / (2 * alpha):g}, got {r}."
        )
    experts, params = _round_up(eps ** -(num_inputs / alpha - 2 * r)), _round_up(eps**-r)
    return Plan(experts, params, experts * params, tree_height(experts, arity))


def fit_lipschitz(
    function: Callable[[Tensor], Tensor],
    eps: float,
    num_inputs: int,
    lipschitz: float = 1.0,
    alpha: float = 1.0,
    tree_arity: int | None = None,
) -> NearestPrototypeMoE:
    """A mixture of constant experts within eps of a function everywhere on [0, 1]^n.

    Prototypes are the centres of a grid, no point farther than delta from one, with lipschitz * delta^alpha <= eps.

    Args:
        function: ``(B, n) -> (B, outputs)``.
        eps: uniform error of each output.
        num_inputs: n.
        lipschitz: least M with |f(x) - f(y)| <= M ||x - y||^alpha.
        alpha: Hoelder exponent, in (0, 1].
        tree_arity: of the routing tree; None compares all prototypes.

    Raises:
        ValueError: a value is out of its range, or the error needs more than ``MAX_EXPERTS`` experts.

    Source: delta-net construction of Kratsios et al. 2024 (arXiv 2402.03460), with the simplest experts (r = 0).
    """
    if eps <= 0 or lipschitz <= 0 or not 0 < alpha <= 1:
        raise ValueError(
            f"eps and lipschitz must be positive and alpha in (0, 1], got {eps}, {lipschitz} and {alpha}."
        )
    delta = (eps / lipschitz) ** (1 / alpha)
    return fit_grid(function, num_inputs, _round_up(sqrt(num_inputs) / (2 * delta)), 0, tree_arity)


def fit_smooth(
    function: Callable[[Tensor], Tensor],
    eps: float,
    num_inputs: int,
    curvature: float,
    tree_arity: int | None = None,
) -> NearestPrototypeMoE:
    """A mixture of affine experts, first-order Taylor expansions, within eps of a C^2 function on [0, 1]^n.

    Args:
        function: as of ``fit_lipschitz``, differentiable.
        eps: uniform error of each output.
        num_inputs: n.
        curvature: bound of the spectral norm of the Hessian of each output.
        tree_arity: of the routing tree; None compares all prototypes.

    Raises:
        ValueError: as ``fit_lipschitz``.
    """
    if eps <= 0 or curvature <= 0:
        raise ValueError(f"eps and curvature must be positive, got {eps} and {curvature}.")
    delta = sqrt(2 * eps / curvature)
    return fit_grid(function, num_inputs, _round_up(sqrt(num_inputs) / (2 * delta)), 1, tree_arity)


@torch.no_grad()
def fit_grid(
    function: Callable[[Tensor], Tensor],
    num_inputs: int,
    cells: int,
    depth: int,
    tree_arity: int | None = None,
) -> NearestPrototypeMoE:
    """Experts on a grid of cells^n equal cells: the function's value at the centre (depth 0), or its tangent (1).

    With a routing tree, cells is rounded up to a power of its arity: the cells nest, and the tree finds the nearest.
    """
    check_sizes(num_inputs=num_inputs, cells=cells)
    cells = cells if tree_arity is None else tree_arity ** tree_height(cells, tree_arity)
    if cells**num_inputs > MAX_EXPERTS:
        raise ValueError(
            f"{cells}^{num_inputs} experts are needed, at most {MAX_EXPERTS} are made: raise eps."
        )
    ticks = (torch.arange(cells) + 0.5) / cells
    centres = torch.cartesian_prod(*[ticks] * num_inputs).reshape(-1, num_inputs)
    num_outputs = function(centres[:1]).shape[-1]
    mixture = NearestPrototypeMoE(
        num_inputs, num_outputs, len(centres), depth, tree_arity=tree_arity
    )
    mixture.set_prototypes(centres)
    centres = mixture.prototypes.detach()
    values = function(centres)
    if depth:
        slopes = vmap(jacrev(lambda x: function(x.unsqueeze(0)).squeeze(0)))(
            centres
        )  # (L, outputs, n)
        mixture.weights[0].copy_(slopes)
        values = values - (slopes @ centres.unsqueeze(-1)).squeeze(-1)
    mixture.biases[0].copy_(values)
    return mixture


def vc_dimension_bound(
    num_experts: int, num_inputs: int, depth: int, width: int, activation: str = "prelu"
) -> int:
    """No more than this many points can be labelled in every way by the sign of a mixture with one output.

    The largest m with 2^m <= (routings of m points) * (sign patterns of the experts on the points that they get); one
    expert routes in one way, which leaves the bound of its MLP. O~(L max(n L, J W)) in the paper, whose J W stands for
    depth times number of weights; here explicit, and no worse than L max(n, J W) up to logarithms.

    Args:
        num_experts: L.
        num_inputs: n.
        depth: linear layers of an expert, 0 for constants.
        width: units of its hidden layers.
        activation: ``prelu`` or ``relu``.

    Raises:
        ValueError: a size is below 1, or depth is negative.

    Source: Kratsios et al. 2024 (arXiv 2402.03460) state the order; the count is ours, by Warren's bound for the
        quadratic polynomials that tell which of two prototypes is nearer, and layer by layer for the experts as in
        Bartlett et al. 2019 (arXiv 1703.02930).
    """
    check_sizes(num_experts=num_experts, num_inputs=num_inputs, width=width)
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}.")
    layers = _expert_layers(num_inputs, depth, width, activation == "prelu")

    def log_patterns(m: int) -> float:
        routings = _log_routings(m, num_experts, num_inputs)
        # concave in the number of points, so that an even share of them is the worst case
        return routings + num_experts * sum(
            _log_signs(m / num_experts * k, w, d) for k, w, d in layers
        )

    upper = 1
    while upper <= log_patterns(upper):
        upper *= 2
    lower = upper // 2
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (middle, upper) if middle <= log_patterns(middle) else (lower, middle)
    return lower


def _expert_layers(
    num_inputs: int, depth: int, width: int, learned_slopes: bool
) -> list[tuple[int, int, int]]:
    """Units of each layer, parameters up to it, and the degree of its pre-activations as polynomials in them."""
    if depth == 0:
        return [(1, 1, 1)]
    sizes = [num_inputs, *[width] * (depth - 1), 1]
    slopes = [0, *[width if learned_slopes else 0] * (depth - 1)]
    weights = accumulate((sizes[i] + 1) * sizes[i + 1] + slopes[i] for i in range(depth))
    degrees = (2 * i + 1 if learned_slopes else i + 1 for i in range(depth))
    return list(zip(sizes[1:], weights, degrees, strict=True))


def _log_signs(polynomials: float, variables: int, degree: int) -> float:
    """log2 of the sign patterns that polynomials of a degree can show: at most 2 (2 e K d / V)^V of them if K >= V."""
    if polynomials <= variables:
        return polynomials
    return min(polynomials, 1 + variables * log2(2 * e * polynomials * degree / variables))


def _log_routings(m: int, num_experts: int, num_inputs: int) -> float:
    """log2 of the ways in which m points can be shared out by nearest prototypes: at most (8 e m (L - 1) / n)^(n L)."""
    if num_experts == 1:
        return 0.0
    every = m * log2(num_experts)
    if m * (num_experts - 1) < 2 * num_inputs:  # fewer polynomials than variables
        return every
    return min(every, num_inputs * num_experts * log2(8 * e * m * (num_experts - 1) / num_inputs))


def _round_up(value: float) -> int:
    """The least integer not below a value, forgiving the last digits of a power."""
    return round(value) if isclose(value, round(value), rel_tol=1e-9) else ceil(value)
