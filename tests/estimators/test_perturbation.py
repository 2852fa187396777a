"""The noise of the evolution strategies: its moments, and what they make of the estimate."""

from math import sqrt

import pytest
import torch

from learned_opt.core.rng import generator
from learned_opt.estimators.es import ES
from learned_opt.estimators.perturbation import Perturbation
from learned_opt.estimators.pes import PES
from learned_opt.inner.truncation import Constant
from tests.cases import PERTURBED
from tests.helpers.known_meta_gradients import HORIZON, SIGMA, THETA, on_network, unroll

PAIRS = 40
COPIES = 8_000  # copies are slices of one tensor, which all get noise of their own


def sources(count: int = PAIRS) -> list[torch.Generator]:
    return [generator("noise", pair) for pair in range(count)]


def cubes(theta: dict, sigma: float, perturbation: Perturbation) -> dict:
    """Estimated gradient of ``sum theta^3`` and its standard error, for each entry."""
    many = {name: leaf.expand(COPIES, *leaf.shape) for name, leaf in theta.items()}
    drawn = perturbation.draw(many, sigma, sources())
    losses = []
    for sign in (1, -1):
        loss = 0
        for name, leaf in many.items():
            moved = leaf + sign * drawn.eps[name]
            loss = loss + moved.pow(3).reshape(PAIRS, COPIES, -1).sum(2)
        losses.append(loss)
    weight = (losses[0] - losses[1]) / (2 * sigma**2)
    estimates = {}
    for name, score in drawn.score.items():
        values = (weight.reshape(PAIRS, COPIES, *[1] * (score.ndim - 2)) * score).flatten(0, 1)
        estimates[name] = values.mean(0), values.std(0) / sqrt(PAIRS * COPIES)
    return estimates


def within(estimate: tuple, truth: torch.Tensor, off: float = 4.0) -> bool:
    mean, error = estimate
    assert (error < 0.05 * mean.abs().max()).all()  # enough draws to notice a bias
    return bool(((mean - truth).abs() < off * error).all())


def test_the_default_adds_gaussian_noise_and_its_score_is_itself() -> None:
    theta = {"a": torch.randn(3, 2), "b": torch.randn(())}
    drawn = Perturbation().draw(theta, 0.1, sources(4))
    same = sources(4)
    for name, leaf in theta.items():
        expected = torch.stack([0.1 * torch.randn(leaf.shape, generator=source) for source in same])
        assert torch.equal(drawn.eps[name], expected)
        assert torch.equal(drawn.score[name], expected)


def test_the_estimate_is_the_gradient_of_the_loss_smoothed_with_each_tensors_own_sigma() -> None:
    """``E (t + sigma z)^3 = t^3 + 3 t sigma^2``."""
    theta = {
        "log_a": torch.tensor([0.5, -0.3]),
        "w": torch.tensor([[0.2, 0.4]]),
        "v": torch.tensor(0.0),
    }
    estimates = cubes(theta, 0.4, Perturbation({"log_*": 0.5, "w": 2.0, "*": 1.0}))
    truths = {
        n: 3 * theta[n].square() + 3 * (0.4 * s) ** 2
        for n, s in {"log_a": 0.5, "w": 2.0, "v": 1.0}.items()
    }
    assert all(within(estimates[name], truth) for name, truth in truths.items())
    wrong = 3 * theta["w"].square() + 3 * 0.4**2  # negative control: the test can tell
    assert not within(estimates["w"], wrong, off=8)


def test_relative_sigma_follows_the_root_mean_square_down_to_the_floor() -> None:
    theta = {"large": torch.tensor([3.0, -4.0]), "zero": torch.zeros(2)}
    plain = Perturbation().draw(theta, 0.1, sources(3))
    drawn = Perturbation({"zero": 3.0}, relative=True, floor=0.2).draw(theta, 0.1, sources(3))
    for name, factor in {"large": sqrt(12.5), "zero": 3 * 0.2}.items():
        torch.testing.assert_close(drawn.eps[name], plain.eps[name] * factor)
        torch.testing.assert_close(drawn.score[name], drawn.eps[name] / factor**2)


@pytest.mark.parametrize("rank", [1, 3])
def test_low_rank_noise_has_covariance_one_and_the_fourth_moment_of_theory(rank) -> None:
    """An entry of ``a b^T / sqrt(r)`` has ``E z^4 = 3 + 6/r``, that of a Gaussian 3; so
    ``W^3`` tells the bias.
    """
    theta = {"w": torch.tensor([[0.3, -0.2, 0.1], [0.0, 0.4, 0.2]])}
    sigma = 0.5
    perturbation = Perturbation(rank=rank)
    z = (
        perturbation.draw({"w": torch.zeros(COPIES, 2, 3)}, 1.0, sources())
        .eps["w"]
        .flatten(0, 1)
        .flatten(1)
    )
    assert (z.T @ z / len(z) - torch.eye(6)).abs().max() < 5 * sqrt((2 + 6 / rank) / len(z))
    estimates = cubes(theta, sigma, perturbation)["w"]
    square = 3 * theta["w"].square()
    assert within(estimates, square + (3 + 6 / rank) * sigma**2)
    assert not within(estimates, square + 3 * sigma**2, off=8)


def test_vectors_and_scalars_stay_gaussian() -> None:
    theta = {"bias": torch.randn(4), "log_alpha": torch.randn(())}
    drawn, plain = (Perturbation(rank=rank).draw(theta, 0.1, sources(3)) for rank in (1, None))
    assert all(torch.equal(drawn.eps[name], plain.eps[name]) for name in theta)


def test_low_rank_noise_has_that_rank() -> None:
    drawn = Perturbation(rank=2).draw({"w": torch.zeros(3, 6, 5)}, 0.1, sources(4))
    assert (torch.linalg.matrix_rank(drawn.eps["w"], rtol=1e-4) == 2).all()
    assert torch.equal(drawn.eps["w"], drawn.score["w"])


@pytest.mark.parametrize("kind", PERTURBED.values(), ids=PERTURBED)
def test_a_factor_on_sigma_is_another_sigma(kind) -> None:
    """To the last bit for a power of two, over restarts and with accumulators, in every
    estimator.
    """
    estimates = []
    for sigma, perturbation in (
        (SIGMA, Perturbation()),
        (SIGMA / 4, Perturbation({"log_lr": 4.0})),
    ):
        estimator = kind(unroll(), Constant(HORIZON), 4, 2, sigma, perturbation=perturbation)
        state = estimator.init_state(THETA, generator("start"))
        run = []
        for step in range(5):
            estimate, state = estimator.estimate(THETA, state, generator(step))
            run.append(estimate.gradient["log_lr"])
        estimates.append(torch.stack(run))
    assert torch.equal(*estimates)
    assert (estimates[0] != 0).all()


def test_a_factor_of_zero_fixes_a_tensor() -> None:
    theta = {"a": torch.randn(2, 3), "b": torch.randn(4)}
    draw = Perturbation(factors={"a": 0.0}).draw(theta, 0.1, sources())
    assert not draw.eps["a"].any()
    assert not draw.score["a"].any()
    assert draw.eps["b"].std().item() == pytest.approx(0.1, rel=0.2)


def test_each_eps_is_weighed_by_the_sigma_it_was_drawn_with() -> None:
    """Theta moves between two unrolls of PES, and sigma with it."""
    pes = PES(unroll(), Constant(HORIZON), 3, 2, SIGMA, perturbation=Perturbation(relative=True))
    draws = [
        pes.perturbation.draw(
            {"log_lr": torch.tensor(value, dtype=torch.float64)}, SIGMA, sources(3)
        )
        for value in (-0.5, 2.0)
    ]
    state = pes.init_memory(THETA)
    never = torch.zeros(3, dtype=torch.bool)
    for drawn in draws:
        noise = pes.noise(drawn, state, never)
        state = noise.memory
    expected = sum(
        drawn.eps["log_lr"] / factor**2 for drawn, factor in zip(draws, (0.5, 2.0), strict=True)
    )
    torch.testing.assert_close(noise.direction["log_lr"], expected)


@pytest.mark.parametrize("kind", PERTURBED.values(), ids=PERTURBED)
def test_low_rank_noise_in_every_estimator(kind) -> None:
    estimator, theta = on_network(kind, perturbation=Perturbation(relative=True, rank=1))
    state = estimator.init_state(theta, generator("start"))
    for step in range(3):
        estimate, state = estimator.estimate(theta, state, generator(step))
        assert all(
            leaf.isfinite().all() and leaf.abs().max() > 0 for leaf in estimate.gradient.values()
        )


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"factors": {"log_lr": -1.0}},
            r"factors\[log_lr\] must be at least 0, got -1.0.",
        ),
        (
            {"factors": {"weight": 1.0}},
            r"factors\[weight\] names no tensor of theta, and no block of it .*: log_lr.",
        ),
        ({"floor": 0.0}, "floor must be positive, got 0.0."),
        ({"rank": 0}, "rank must be at least 1, got 0."),
        ({"rank": {"*": 0}}, r"rank\[\*\] must be at least 1, got 0."),
        ({"rank": {"equivariant": 1}}, r"rank\[equivariant\] names no tensor of theta, and no"),
        ({"density": 0.0}, "density must be positive, got 0.0."),
        ({"density": {"*": 2.0}}, r"density\[\*\] must be from 0 to 1, got 2.0."),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        ES(unroll(), Constant(HORIZON), 2, 2, SIGMA, perturbation=Perturbation(**settings))


TABLE = {
    "log_alpha": torch.zeros(()),
    "function.layers.0.weight": torch.zeros(6, 5),
    "function.layers.1.equivariant.table": torch.zeros(COPIES, 4, 3),
}


def test_the_table_alone_is_low_rank_or_sparse() -> None:
    plain = Perturbation().draw(TABLE, 0.1, sources(3)).eps
    name = "function.layers.1.equivariant.table"
    for perturbation in (Perturbation(rank={"equivariant": 1}), Perturbation(rank={"*.table": 1})):
        drawn = perturbation.draw(TABLE, 0.1, sources(3)).eps
        assert (torch.linalg.matrix_rank(drawn[name][:, :50], rtol=1e-4) == 1).all()
        assert all(torch.equal(drawn[other], plain[other]) for other in TABLE if other != name)

    drawn = Perturbation(density={"equivariant": 0.1}).draw(TABLE, 0.1, sources(3)).eps
    assert (drawn[name] != 0).double().mean().item() == pytest.approx(0.1, rel=0.03)
    assert all(torch.equal(drawn[other], plain[other]) for other in TABLE if other != name)


def test_sparse_noise_has_covariance_one_and_the_fourth_moment_of_theory() -> None:
    """``E z^4 = 3 / q`` for a density q, so that the estimate of ``W^3`` tells the bias."""
    theta = {"w": torch.tensor([0.3, -0.2, 0.1])}
    sigma = 0.5
    density = 0.25
    perturbation = Perturbation(density=density)
    many = perturbation.draw({"w": torch.zeros(COPIES, 3)}, 1.0, sources()).eps["w"].flatten(0, 1)
    error = sqrt(3 / density / len(many))
    assert (many.T @ many / len(many) - torch.eye(3)).abs().max() < 5 * error
    estimates = cubes(theta, sigma, perturbation)["w"]
    square = 3 * theta["w"].square()
    assert within(estimates, square + 3 / density * sigma**2)
    assert not within(estimates, square + 3 * sigma**2, off=8)
