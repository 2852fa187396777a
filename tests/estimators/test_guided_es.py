"""Guided ES against the closed form of its mean on linear losses."""

from functools import partial

import numpy as np
import pytest
import torch

from learned_opt.core.rng import generator
from learned_opt.estimators.chain_gradients import ChainGradients
from learned_opt.estimators.control_variate import ControlVariate
from learned_opt.estimators.es import ES
from learned_opt.estimators.guided_es import GUIDES, GuidedES
from learned_opt.estimators.perturbation import Perturbation
from learned_opt.inner.truncation import Constant
from tests.helpers.known_meta_gradients import (
    HORIZON,
    SIGMA,
    analytic_gradient,
    on_network,
    replicates,
    standard_errors_off,
    unroll,
)

PAIRS = 30_000
THETA = {"a": torch.zeros(2, 2, dtype=torch.float64), "b": torch.zeros(3, dtype=torch.float64)}
GRADIENT = torch.tensor([1.0, -2.0, 0.5, 1.5, 1.0, -1.0, 3.0], dtype=torch.float64)
GUIDING = torch.tensor(
    [[1.0, 0.0, 0.0, 1.0, 0.0, 0.0, 1.0], [0.0, 1.0, 1.0, 0.0, 0.0, 2.0, 0.0]],
    dtype=torch.float64,
)  # the newest, and the one before


def as_theta(row: torch.Tensor) -> dict:
    return {
        "a": row[..., :4].unflatten(-1, (2, 2)),
        "b": row[..., 4:],
    }


def guided_estimates(share: float, factors: dict | None) -> torch.Tensor:
    """Estimates of the gradient of ``GRADIENT . theta`` by single pairs, ``(PAIRS, 7)``."""
    estimator = GuidedES(
        unroll(), Constant(HORIZON), 1, 2, 0.1, guided_share=share, num_guides=2, beta=1.5
    )
    estimator.perturbation = Perturbation(factors=factors)
    many = as_theta(GUIDING[0].expand(PAIRS, -1))
    unperturbed = ChainGradients(torch.zeros(1), many, torch.ones(1), {})
    scale = torch.tensor([2.0] * 4 + [1.0] * 3) if factors else torch.ones(7)
    earlier = (scale * GUIDING[1]).expand(PAIRS, 2, -1)
    sources = [generator("guided", pair) for pair in range(PAIRS)]
    drawn = estimator.draw(THETA, {GUIDES: earlier}, sources, unperturbed)
    noise = estimator.noise(drawn, {}, torch.zeros(PAIRS, dtype=torch.bool))

    rows = [leaf.reshape(PAIRS, -1) for leaf in noise.eps.values()]
    difference = 2 * torch.cat(rows, 1) @ GRADIENT
    direction = torch.cat([leaf.reshape(PAIRS, -1) for leaf in noise.direction.values()], 1)
    return difference[:, None] * direction / (2 * 0.1**2)


@pytest.mark.parametrize("factors", [None, {"a": 2.0}], ids=["plain", "scaled"])
@pytest.mark.parametrize("share", [0.0, 0.5])
def test_the_mean_is_the_tilted_gradient(share, factors) -> None:
    """``b (a/n I + (1-a)/k Q Q^T) grad``, in coordinates in which all sigmas are one."""
    values = guided_estimates(share, factors)
    scale = torch.tensor([2.0] * 4 + [1.0] * 3, dtype=torch.float64) if factors else 1.0
    basis, _ = torch.linalg.qr((scale * GUIDING).T)
    metric = (1 - share) / 7 * torch.eye(7) + share / 2 * basis @ basis.T
    expected = 1.5 * metric @ (scale * GRADIENT) / scale

    error = values.std(0) / PAIRS**0.5
    assert ((values.mean(0) - expected).abs() < 4 * error).all()
    if share:  # the guides are no gradient here, and the mean shows it
        isotropic = 1.5 / 7 * GRADIENT
        assert ((values.mean(0) - isotropic).abs() > 8 * error).any()


def test_a_gradient_along_its_guide_keeps_its_length() -> None:
    """One entry of theta: ``b (a + 1 - a) = b`` times the gradient, for smooth enough losses."""
    kind = partial(GuidedES, remat=False)
    values = replicates(kind(unroll(), Constant(HORIZON), 100, HORIZON, 0.01), 1, 20)
    assert standard_errors_off(values, 2 * analytic_gradient(0, HORIZON, 0)) < 3


def test_the_state_keeps_the_last_gradients() -> None:
    estimator, theta = on_network(GuidedES, "sgdm", num_guides=3, num_tasks=2)
    state = estimator.init_state(theta, generator("start"))
    seen = []
    for step in range(4):
        _, state = estimator.estimate(theta, state, generator(step))
        seen.append(state[GUIDES][:, 0].clone())
    assert torch.equal(state[GUIDES], torch.stack(seen[:-4:-1], 1))
    assert all(rows.abs().min() > 0 for rows in seen)


def test_noise_has_the_length_sigma_and_half_of_it_along_the_gradient() -> None:
    estimator, theta = on_network(GuidedES, "unf", num_tasks=64, sigma=0.5)
    state = estimator.init_state(theta, generator("start"))
    start = estimator.unroll_start(theta, state, generator(0))
    rows = []
    for name, leaf in start.theta.items():
        rows.append((leaf[:64] - theta[name]).reshape(64, -1))
    squares = torch.cat(rows, 1).square().sum(1)
    assert squares.mean().item() == pytest.approx(0.25, rel=0.3)

    _, after = estimator.estimate(theta, state, generator(0))
    guide = after[GUIDES][:, 0]
    along = (torch.cat(rows, 1) * guide).sum(1).square() / guide.square().sum(1)
    assert (along.mean() / squares.mean()).item() == pytest.approx(0.5, abs=0.15)


def test_its_cost_has_the_third_chain_in_it() -> None:
    estimator, _ = on_network(GuidedES, "sgdm")
    plain, _ = on_network(ES, "sgdm")
    assert estimator.num_gradients == 3 * plain.num_gradients  # 2 of the pair and 4 of the third
    assert estimator.backpropagates


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"guided_share": 1.5}, "guided_share must be from 0 to 1, got 1.5"),
        ({"num_guides": 0}, "num_guides must be at least 1, got 0"),
        ({"beta": 0.0}, "beta must be positive, got 0.0"),
        ({"control": ControlVariate()}, "control must be null in guided ES"),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        GuidedES(unroll(), Constant(HORIZON), 2, 2, SIGMA, **settings)


def test_the_variance_is_below_that_of_isotropic_noise() -> None:
    """Beside the mean: on a network at its start, where the gradient predicts the differences."""
    ratios = {}
    for name, kind, sigma in (("guided", GuidedES, 0.2), ("es", ES, 0.01)):
        estimator, theta = on_network(kind, "unf", sigma=sigma, unroll_length=6, num_tasks=8)
        values = []
        for replicate in range(8):
            state = estimator.init_state(theta, generator("start", replicate))
            estimate, _ = estimator.estimate(theta, state, generator("go", replicate))
            flat = [leaf.flatten() for leaf in estimate.gradient.values()]
            values.append(torch.cat(flat).numpy())
        mean = np.mean(values, 0)
        ratios[name] = np.var(values, 0, ddof=1).sum() / np.square(mean).sum()
    assert ratios["guided"] < 0.1 * ratios["es"]
