"""Gradients as control variates against closed forms: means, and ratios of variances."""

from functools import partial

import numpy as np
import pytest
import torch

from learned_opt.core.rng import generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.control_variate import ControlVariate
from learned_opt.estimators.es import ES
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.nres import NRES
from learned_opt.estimators.pairs import Noise, where_pairs
from learned_opt.estimators.pes import PES
from learned_opt.estimators.share import Share
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from tests.cases import others_slow, spec_of
from tests.helpers.known_meta_gradients import (
    HORIZON,
    SIGMA,
    GradientDescent,
    Slope,
    es_truth,
    pes_truth,
    replicates,
    standard_errors_off,
    unroll,
)

DIM = 40
ZERO = {"log_lr": torch.zeros(DIM, dtype=torch.float64)}
FITTED = ControlVariate(remat=False)
WHOLE = ControlVariate(coefficient=1.0, remat=False)  # PES+A


class OfTheta(GradientDescent):
    """``update = curve(theta) - fading params``, whatever the gradient."""

    def __init__(self, spec, curve, fading=0.0) -> None:
        super().__init__(spec)
        self.curve = curve
        self.fading = fading
        self.log_lr = torch.nn.Parameter(torch.zeros(DIM, dtype=torch.float64))

    def forward(self, grads, state, params, loss):
        updates = {name: self.curve(self.log_lr) - self.fading * x for name, x in params.items()}
        return updates, {"step": state["step"] + 1}


def inner(curve, fading=0.0) -> Unroll:
    family = Slope(dim=DIM, random_init=False, dtype=torch.float64)
    return Unroll(family, OfTheta(spec_of(family), curve, fading), compile=False)


def estimates(estimator, count: int) -> tuple[np.ndarray, list]:
    """``(count, DIM)`` at theta 0, and what the estimates were."""
    state = estimator.init_state(ZERO, generator("start"))
    state["step"] = torch.zeros_like(state["step"])  # not staggered
    made = []
    for step in range(count):
        estimate, state = estimator.estimate(ZERO, state, generator("estimate", step))
        made.append(estimate)
    return np.stack([each.gradient["log_lr"].numpy() for each in made]), made


def variance(values: np.ndarray) -> float:
    return float(values.var(0, ddof=1).mean())


def variance_of_a_cubic(coefficient: float, cubic: float, dim: int) -> float:
    """Of one entry of the estimate of one pair, for ``L = sum_j theta_j + cubic theta_j^3``.

    At 0 with sigma 1, where half the difference minus the control is ``sum_j f(e_j)`` with
    ``f(e) = (1 - c) e + cubic e^3``: ``(dim - 1) E f^2 + E f^2 e^2 - (E f e)^2``.
    """
    linear = 1 - coefficient
    f_square = linear**2 + 6 * linear * cubic + 15 * cubic**2
    f_square_e_square = 3 * linear**2 + 30 * linear * cubic + 105 * cubic**2
    return (dim - 1) * f_square + f_square_e_square - (linear + 3 * cubic) ** 2


@pytest.mark.parametrize("cubic", others_slow((1.0, -0.2, -0.28), (1.0,)))
def test_the_variance_is_one_minus_rho_squared(cubic) -> None:
    """The final loss is ``sum_j theta_j + a theta_j^3`` with ``a = cubic / sigma^2``, at 0.

    With Gaussian moments ``rho^2 = (1 + 3 cubic)^2 / (1 + 6 cubic + 15 cubic^2)``: 0.73, 0.40 and
    0.05. The smoothed gradient is ``1 + 3 cubic`` in every entry, that of backpropagation 1.
    """
    curve = inner(lambda theta: theta + cubic / SIGMA**2 * theta**3)
    settings = (curve, Constant(2), 32, 2, SIGMA, MetaLoss("final"))
    plain, _ = estimates(ES(*settings), 90)
    controlled, made = estimates(ES(*settings, control=FITTED), 90)
    plain, controlled = plain[10:], controlled[10:]  # by then the fit has 300 pairs

    rho_squared = (1 + 3 * cubic) ** 2 / (1 + 6 * cubic + 15 * cubic**2)
    best = 1 + 3 * cubic
    many, few = (
        variance_of_a_cubic(best, cubic, dim) / variance_of_a_cubic(0, cubic, dim)
        for dim in (10**6, DIM)
    )
    assert many == pytest.approx(1 - rho_squared, abs=1e-4)
    assert variance(controlled) / variance(plain) == pytest.approx(few, rel=0.07)
    assert made[-1].figures["control_rho"].item() ** 2 == pytest.approx(rho_squared, abs=0.06)
    assert standard_errors_off(controlled.mean(1), 1 + 3 * cubic) < 3.5
    assert standard_errors_off(controlled.mean(1), 1) > 6  # the test can tell


def test_a_gradient_that_predicts_nothing_is_left_alone() -> None:
    """With ``cubic = -1/3`` rho is 0, and most estimates are those of ES to the last bit."""
    curve = inner(lambda theta: theta - theta**3 / (3 * SIGMA**2))
    settings = (curve, Constant(2), 32, 2, SIGMA, MetaLoss("final"))
    strict = ControlVariate(significance=3.0, remat=False)
    plain, _ = estimates(ES(*settings), 30)
    controlled, made = estimates(ES(*settings, control=strict), 30)
    same = (plain == controlled).all(1)
    assert same.mean() > 0.8
    assert [each.figures["control_rho"] == 0 for each in made][-1]
    greedy, _ = estimates(ES(*settings, control=ControlVariate(significance=0.0)), 30)
    assert (plain == greedy).all(1).mean() < 0.1


def test_a_pair_has_no_part_in_its_coefficient() -> None:
    """Not by its new difference, nor by any earlier one."""
    source = torch.Generator().manual_seed(0)
    predicted = torch.randn(24, generator=source)
    actual = 0.8 * predicted + 0.1 * torch.randn(24, generator=source)
    never = torch.zeros(24, dtype=torch.bool)
    fits = []
    for first in (actual[0], 100 + actual[0]):
        changed = torch.cat([first[None], actual[1:]])
        memory = FITTED.init_memory(24)
        for _ in range(3):
            fit = FITTED.fit(memory, never, changed, predicted, Share())
            memory = fit.memory
        fits.append(fit.coefficients)
    assert fits[0][0] == fits[1][0] != 0
    assert (fits[0][1:] != fits[1][1:]).all()
    assert fits[0].tolist() == pytest.approx([0.8] * 24, abs=0.05)


def test_unrolls_are_fitted_apart_by_their_distance_from_the_restart() -> None:
    """Slope 2 in the first unroll, -1 in the second, nothing in the third and fourth."""
    source = torch.Generator().manual_seed(1)
    control = ControlVariate(significance=3.0)
    memory = control.init_memory(8)
    by_age: dict[int, list] = {0: [], 1: [], 2: [], 3: []}
    for step in range(60):
        age = step % 4
        predicted = torch.randn(8, generator=source)
        actual = (2.0, -1.0, 0.0, 0.0)[age] * predicted
        actual = actual + 0.3 * torch.randn(8, generator=source)
        restarted = torch.full((8,), age == 0)
        fit = control.fit(memory, restarted, actual, predicted, Share())
        memory = fit.memory
        by_age[age] = fit.coefficients.tolist()
    assert by_age[0] == pytest.approx([2.0] * 8, abs=0.1)
    assert by_age[1] == pytest.approx([-1.0] * 8, abs=0.1)
    assert by_age[2] == by_age[3] == [0.0] * 8


def test_one_outlier_is_no_evidence() -> None:
    """A pair with a gradient of 1e12 times the others' makes no coefficient significant."""
    predicted = torch.tensor([1e12, 1.0, -1.0, 0.5, 2.0], dtype=torch.float64)
    actual = torch.tensor([1e6, 0.1, 0.1, -0.1, 0.1], dtype=torch.float64)
    never = torch.zeros(5, dtype=torch.bool)
    fit = FITTED.fit(FITTED.init_memory(5), never, actual, predicted, Share())
    assert fit.coefficients.tolist() == [0.0] * 5


# of the noise: what a control leaves over of wider noise has tails that few draws reach
NARROW = 0.1
CASES = {
    "es": (partial(ES, control=FITTED), HORIZON, es_truth(NARROW)),
    "nres": (partial(NRES, control=FITTED), HORIZON // 2, es_truth(NARROW)),
    "pes": (partial(PES, control=FITTED), HORIZON // 2, pes_truth(HORIZON // 2, NARROW)),
    "pes_a": (partial(PES, control=WHOLE), HORIZON // 2, pes_truth(HORIZON // 2, NARROW)),
}


@pytest.mark.parametrize("name", others_slow(CASES, ("es", "pes")))
def test_the_mean_is_the_gradient_of_the_smoothed_loss(name) -> None:
    """On gradient descent, whose losses are no polynomials of theta of low degree."""
    kind, length, truth = CASES[name]
    estimator = kind(unroll(), Constant(HORIZON), 160, length, NARROW)
    values = replicates(estimator, HORIZON // length, 20)
    assert standard_errors_off(values, truth) < 3
    assert values.std(ddof=1) / np.sqrt(len(values)) < 0.03 * abs(truth)


class Released(PES):
    """PES+A as it was released: without the newest perturbation, whose part is the gradient's."""

    def noise(self, drawn, state, restarted):
        zeros = {name: torch.zeros_like(leaf) for name, leaf in drawn.score.items()}
        earlier = where_pairs(restarted, zeros, state["accumulator"])
        kept = super().noise(drawn, state, restarted)
        return Noise(drawn.eps, earlier, kept.memory)


@pytest.mark.slow
def test_the_released_form_of_pes_a_is_biased() -> None:
    """The gradient of the chain with theta itself is not that of perturbed chains in the mean."""
    truth = pes_truth(HORIZON // 2, 2 * NARROW)
    released = Released(unroll(), Constant(HORIZON), 100, HORIZON // 2, 2 * NARROW, control=WHOLE)
    values = replicates(released, 2, 24)
    assert standard_errors_off(values, truth) > 5


def predicted_variance(newest: bool) -> float:
    """To leading order in the dimension, the mean of the products of two covariances over windows.

    Params are ``x <- theta``, so that the mean loss of the two steps of window w is half of the
    perturbation before and half of the newest one; the other factor is their sum so far.
    """
    losses = 0.5 * np.eye(4, k=-1) + (0.5 * np.eye(4) if newest else 0)
    sums = np.tril(np.ones((4, 4)))
    return float(np.mean((losses @ losses.T) * (sums @ sums.T)))


def test_the_variance_of_pes_a_beside_pes_is_that_of_theory() -> None:
    """Four windows of two steps: 0.29 of the variance, and both without bias."""
    variances = {}
    for name, control in {"pes": None, "pes_a": WHOLE}.items():
        estimator = PES(
            inner(lambda theta: theta, fading=1.0), Constant(8), 20, 2, SIGMA, control=control
        )
        values, _ = estimates(estimator, 4 * 60)
        episodes = values.reshape(60, 4, DIM).mean(1)
        assert standard_errors_off(episodes.mean(1), (0.5 + 3) / 4) < 3.5
        variances[name] = variance(episodes)
    expected = predicted_variance(newest=False) / predicted_variance(newest=True)
    assert expected == pytest.approx(2.25 / 7.75)
    assert variances["pes_a"] / variances["pes"] == pytest.approx(expected, rel=0.15)


def test_backward_passes_are_counted() -> None:
    """An inner step costs 1, its backward pass 2, and 1 more where it runs the step again."""
    settings = (unroll(), Constant(HORIZON), 5, HORIZON)
    assert ES(*settings, SIGMA).num_gradients == 2 * 5 * HORIZON
    assert ES(*settings, SIGMA, control=FITTED).num_gradients == (2 + 3) * 5 * HORIZON
    assert ES(*settings, SIGMA, control=ControlVariate()).num_gradients == (2 + 4) * 5 * HORIZON
    assert BPTT(*settings).num_gradients == 3 * 5 * HORIZON
    assert BPTT(*settings, remat=True).num_gradients == 4 * 5 * HORIZON


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"decay": 1.5}, "decay must be from 0 to 1, got 1.5"),
        ({"significance": -1.0}, "significance must be at least 0, got -1.0"),
        ({"coefficient": float("nan")}, "coefficient must be a finite number, got nan"),
    ],
)
def test_bad_values_are_named(settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        ControlVariate(**settings)
