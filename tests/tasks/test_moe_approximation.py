"""Constructed mixtures against their error bounds and rates; sizes; the VC bound against search."""

from itertools import product
from math import log, pi, sqrt

import pytest
import torch
from torch import Tensor

from tasks.networks.moe import NearestPrototypeMoE
from tasks.networks.moe_approximation import (
    fit_grid,
    fit_lipschitz,
    fit_smooth,
    plan,
)
from tasks.networks.moe_capacity import vc_dimension_bound


def bumps(x: Tensor) -> Tensor:
    """Smooth: norms at most pi of the gradient and pi^2 of the Hessian, in every dimension."""
    return torch.sin(pi * x).prod(-1, keepdim=True)


def distance(x: Tensor) -> Tensor:
    """Lipschitz with constant 1, with a kink, and two outputs."""
    centre = torch.full((x.shape[-1],), 0.4, dtype=x.dtype)
    far = (x - centre).norm(dim=-1, keepdim=True)
    return torch.cat([far, -far], -1)


def probes(dims: int, cells: int = 0) -> Tensor:
    """Random points, and for a grid points on both sides of the borders of its cells."""
    source = torch.Generator().manual_seed(dims)
    inside = torch.rand(20_000, dims, generator=source)
    if not cells:
        return inside
    edges = torch.randint(cells + 1, (20_000, dims), generator=source) / cells
    aside = edges + 1e-4 * torch.randn(edges.shape, generator=source)
    return torch.cat([inside, aside.clamp(0, 1)])


@torch.no_grad()
def sup_error(mixture: NearestPrototypeMoE, function, cells: int = 0) -> float:
    x = probes(mixture.in_features, cells)
    return (mixture(x) - function(x)).abs().max().item()


@pytest.mark.parametrize("dims", [1, 2, pytest.param(3, marks=pytest.mark.slow)])
@pytest.mark.parametrize(("depth", "rate"), [(0, 1), (1, 2)])
def test_sup_error_falls_with_the_rate_of_the_experts(dims, depth, rate) -> None:
    """Slopes in the number of experts: -1/n of constant ones, -2/n of affine ones; within 12%."""
    sides = {1: (8, 64), 2: (8, 48), 3: (5, 16)}[dims]
    errors = [sup_error(fit_grid(bumps, dims, side, depth), bumps, side) for side in sides]
    slope = log(errors[1] / errors[0]) / log((sides[1] / sides[0]) ** dims)
    print(f"n = {dims}, depth {depth}: slope {slope:.3f}, expected {-rate / dims:.3f}")
    assert slope == pytest.approx(-rate / dims, rel=0.12)


@pytest.mark.parametrize("arity", [None, 2])
@pytest.mark.parametrize("dims", [1, 2, 3])
def test_fitted_mixtures_keep_their_error(dims, arity) -> None:
    lipschitz = fit_lipschitz(distance, 0.1, dims, tree_arity=arity)
    smooth = fit_smooth(bumps, 0.05, dims, curvature=pi**2, tree_arity=arity)
    assert 0.01 < sup_error(lipschitz, distance) <= 0.1 + 1e-6
    assert 0.002 < sup_error(smooth, bumps) <= 0.05 + 1e-6
    side = round(lipschitz.num_experts ** (1 / dims))
    fewest = -(-sqrt(dims) // 0.2)  # cells per axis that the bound allows
    assert side == fewest if arity is None else side in (4, 8, 16) and fewest <= side < 2 * fewest


def test_hoelder_exponent_sets_the_number_of_cells() -> None:
    made = fit_lipschitz(torch.sqrt, 0.1, 1, alpha=0.5)  # delta = 0.01
    assert made.num_experts == 50
    assert sup_error(made, torch.sqrt) <= 0.1 + 1e-6


def test_plan_has_the_end_points_of_the_paper() -> None:
    assert plan(0.1, 8, r=1.0) == (10**6, 10, 10**7, 20)
    assert plan(0.1, 8, r=1.0, arity=10).tree_height == 6
    assert plan(0.1, 8, r=4.0) == (
        1,
        10**4,
        10**4,
        0,
    )  # the single network, 1000 times the expert of r = 1
    assert plan(0.01, 3, alpha=0.5) == (10**12, 1, 10**12, 40)
    for r in (0.0, 0.5, 1.5):
        made = plan(0.01, 3, r=r)
        assert made.num_experts * made.params_per_expert**2 == pytest.approx(0.01**-3, rel=1e-3)


def test_vc_bound_is_monotone_and_that_of_the_network_for_one_expert() -> None:
    base = {"num_experts": 3, "num_inputs": 4, "depth": 2, "width": 5}
    bound = vc_dimension_bound(**base)
    for key, values in {
        "num_experts": (1, 4, 9),
        "num_inputs": (2, 6, 9),
        "depth": (1, 3, 4),
        "width": (2, 8, 16),
    }.items():
        bounds = [vc_dimension_bound(**{**base, key: v}) for v in sorted((*values, base[key]))]
        assert bounds == sorted(set(bounds)), key
        assert bound in bounds
    assert vc_dimension_bound(**base, activation="relu") < bound
    one = vc_dimension_bound(1, 4, 2, 5)
    hidden = 5 * (4 + 1)
    total = 5 * (4 + 1) + 5 + 5 + 1

    def patterns(m: int) -> float:
        return 1 + hidden * log2(m * 5, 1, hidden) + 1 + total * log2(m, 3, total)

    assert patterns(one) >= one
    assert patterns(one + 1) < one + 1


def log2(polynomials: int, degree: int, variables: int) -> float:
    return log(2 * 2.718281828459045 * polynomials * degree / variables, 2)


@pytest.mark.parametrize("num_experts", [1, 2, 3])
def test_vc_bound_holds_where_the_dimension_is_known(num_experts) -> None:
    """Constant experts on a line: L intervals, which label L points in every way, and no more."""
    assert _most_labelled_on_a_line(num_experts) == num_experts
    assert vc_dimension_bound(num_experts, 1, 0, 1) >= num_experts


def _most_labelled_on_a_line(num_experts: int) -> int:
    points = torch.arange(5.0).unsqueeze(1)
    made = NearestPrototypeMoE(1, 1, num_experts, depth=0)
    seen = set()
    places = torch.arange(-1.0, 6.0, 0.5).tolist()
    for chosen in product(places, repeat=num_experts):
        made.prototypes.data = torch.tensor(chosen).unsqueeze(1)
        cells = made.route(points)
        for signs in product((False, True), repeat=num_experts):
            seen.add(tuple(torch.tensor(signs)[cells].tolist()))
    most = 0
    for m in range(6):
        labellings = {labels[:m] for labels in seen}
        if len(labellings) == 2**m:
            most = m
    return most


@pytest.mark.parametrize(
    ("make_bad", "message"),
    [
        (lambda: plan(0.0, 3), "eps must be between 0 and 1, got 0.0"),
        (lambda: plan(0.1, 0), "num_inputs must be at least 1, got 0"),
        (lambda: plan(0.1, 3, alpha=2.0), r"alpha must be in \(0, 1\], got 2.0"),
        (lambda: plan(0.1, 3, r=2.0), r"r must be between 0 and n / \(2 alpha\) = 1.5, got 2.0"),
        (lambda: plan(0.1, 3, arity=1), "arity must be at least 2, got 1"),
        (
            lambda: fit_lipschitz(bumps, 0.0, 2),
            r"must be positive and alpha in \(0, 1\], got 0.0, 1.0 and 1.0",
        ),
        (lambda: fit_lipschitz(bumps, 0.1, 1, tree_arity=1), "arity must be at least 2, got 1"),
        (
            lambda: fit_smooth(bumps, 0.1, 2, -1.0),
            "eps and curvature must be positive, got 0.1 and -1.0",
        ),
        (
            lambda: fit_lipschitz(bumps, 0.001, 3),
            r"867\^3 experts are needed, at most 1000000 are made: raise eps",
        ),
        (lambda: vc_dimension_bound(0, 2, 1, 1), "num_experts must be at least 1, got 0"),
        (lambda: vc_dimension_bound(2, 2, -1, 1), "depth must not be negative, got -1"),
    ],
)
def test_bad_values_are_named(make_bad, message) -> None:
    with pytest.raises(ValueError, match=message):
        make_bad()
