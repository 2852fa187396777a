"""The capacity of nearest-prototype mixtures: a bound of their VC dimension.

Legend: n inputs, L experts, m points, K polynomials, d their degree, V their variables.
"""

from math import e, log2
from typing import NamedTuple

from tasks.networks.base import check_sizes


class LayerCount(NamedTuple):
    """What one layer of an expert adds to the count of sign patterns.

    Args:
        units: units of the layer, each a polynomial in the parameters for each point.
        num_params: parameters up to this layer, the variables of these polynomials.
        degree: degree of the polynomials.
    """

    units: int
    num_params: int
    degree: int


def vc_dimension_bound(
    num_experts: int, num_inputs: int, depth: int, width: int, activation: str = "prelu"
) -> int:
    """No more points than this can be labelled in every way by the sign of a mixture's output.

    The largest m with 2^m <= (routings of m points) * (sign patterns of the experts on the points
    that they get). One expert routes in one way, which leaves the bound of its MLP.

    Args:
        num_experts: L.
        num_inputs: n.
        depth: linear layers of an expert, 0 for constants.
        width: units of its hidden layers.
        activation: ``prelu`` or ``relu``.

    Raises:
        ValueError: a size is below 1, or depth is negative.

    Source: Kratsios et al. 2024 (arXiv 2402.03460) state the order O~(L max(n L, J W)) for
    experts of depth J and width W. The count is ours, by Warren's bound for the quadratic
    polynomials that tell which of two prototypes is nearer, and layer by layer for the experts as
    in Bartlett et al. 2019 (arXiv 1703.02930). We read J W as depth times number of weights; the
    count is then no worse than L max(n, J W) up to logarithms.

    >>> vc_dimension_bound(num_experts=1, num_inputs=1, depth=0, width=1)  # the dimension is 1
    6
    """
    check_sizes(num_experts=num_experts, num_inputs=num_inputs, width=width)
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}.")
    layers = _expert_layers(num_inputs, depth, width, learned_slopes=activation == "prelu")

    def log_patterns(num_points: int) -> float:
        # concave in the number of points, so that an even share of them is the worst case
        points_of_expert = num_points / num_experts
        in_expert = sum(
            _log_signs(points_of_expert * layer.units, layer.num_params, layer.degree)
            for layer in layers
        )
        return _log_routings(num_points, num_experts, num_inputs) + num_experts * in_expert

    upper = 1
    while upper <= log_patterns(upper):
        upper *= 2

    lower = upper // 2
    while upper - lower > 1:
        middle = (lower + upper) // 2
        if middle <= log_patterns(middle):
            lower = middle
        else:
            upper = middle
    return lower


def _expert_layers(
    num_inputs: int, depth: int, width: int, learned_slopes: bool
) -> list[LayerCount]:
    """The layers of an expert with one output."""
    if depth == 0:
        return [LayerCount(units=1, num_params=1, degree=1)]

    layers = []
    inputs = num_inputs
    num_params = 0
    for index in range(depth):
        is_first = index == 0
        units = 1 if index == depth - 1 else width
        num_params += (inputs + 1) * units
        if learned_slopes and not is_first:
            num_params += width  # of the activation before this layer

        degree = 2 * index + 1 if learned_slopes else index + 1
        layers.append(LayerCount(units, num_params, degree))
        inputs = units
    return layers


def _log_signs(num_polynomials: float, num_variables: int, degree: int) -> float:
    """log2 of the sign patterns of polynomials: at most 2 (2 e K d / V)^V of them if K >= V."""
    if num_polynomials <= num_variables:
        return num_polynomials

    per_variable = log2(2 * e * num_polynomials * degree / num_variables)
    return min(num_polynomials, 1 + num_variables * per_variable)


def _log_routings(num_points: int, num_experts: int, num_inputs: int) -> float:
    """log2 of the ways to share out m points by nearest prototypes.

    There are at most (8 e m (L - 1) / n)^(n L) of them, and no more than L^m.
    """
    if num_experts == 1:
        return 0.0

    all_ways = num_points * log2(num_experts)
    if num_points * (num_experts - 1) < 2 * num_inputs:  # fewer polynomials than variables
        return all_ways

    per_variable = log2(8 * e * num_points * (num_experts - 1) / num_inputs)
    return min(all_ways, num_inputs * num_experts * per_variable)
