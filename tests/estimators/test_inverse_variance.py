"""Metz et al.'s combination of ES and backpropagation against closed forms."""

import numpy as np
import pytest

from learned_opt.core.rng import generator
from learned_opt.estimators.control_variate import ControlVariate
from learned_opt.estimators.es import ES
from learned_opt.estimators.inverse_variance import InverseVariance
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.perturbation import Perturbation
from learned_opt.inner.truncation import Constant
from tests.estimators.test_control_variates import ZERO, estimates, inner
from tests.helpers.known_meta_gradients import (
    CURVATURES,
    HORIZON,
    LOG_LR,
    SIGMA,
    THETA,
    es_truth,
    mean_loss,
    replicates,
    standard_errors_off,
    unroll,
)


def slope(log_lr: float) -> float:
    """Derivative of the mean loss of the horizon by the log learning rate."""
    h = np.array(CURVATURES)
    lr = np.exp(log_lr)
    total = 0.0
    for t in range(1, HORIZON):
        total += np.sum(-h * (1 - lr * h) ** t * t * h * lr * (1 - lr * h) ** (t - 1))
    return float(total / HORIZON)


def test_it_is_the_published_formula() -> None:
    """From the losses and gradients of every chain in closed form."""
    estimator = InverseVariance(unroll(), Constant(HORIZON), 5, HORIZON, SIGMA)
    state = estimator.init_state(THETA, generator("start"))
    start = estimator.unroll_start(THETA, state, generator(0))
    log_lrs = start.theta["log_lr"].reshape(2, 5).numpy()
    losses = np.vectorize(lambda x: mean_loss([x] * HORIZON, 0, HORIZON))(log_lrs)

    es = (losses[0] - losses[1]) * (log_lrs[0] - LOG_LR) / (2 * SIGMA**2)
    rp = np.vectorize(slope)(log_lrs).mean(0)
    weights = [1 / values.var(ddof=1) for values in (es, rp)]
    expected = np.average([es.mean(), rp.mean()], weights=weights)

    estimate, _ = estimator.estimate(THETA, state, generator(0))
    assert estimate.gradient["log_lr"].item() == pytest.approx(expected, rel=1e-9)
    weight = estimate.figures["backpropagation_weight"].item()
    assert weight == pytest.approx(weights[1] / sum(weights), rel=1e-9)


def test_the_mean_is_the_gradient_of_the_smoothed_loss() -> None:
    """With 100 pairs its bias is below the noise, and its variance below that of ES."""
    settings = (unroll(), Constant(HORIZON), 100, HORIZON, 0.1)
    values = replicates(InverseVariance(*settings, remat=False), 1, 24)
    plain = replicates(ES(*settings), 1, 24)
    assert standard_errors_off(values, es_truth(0.1)) < 3
    assert values.var(ddof=1) < 0.2 * plain.var(ddof=1)


def test_a_quiet_gradient_is_all_and_an_exploding_one_nothing() -> None:
    """The loss is ``sum theta``, and in the second case plus a ripple of slope a thousand."""
    ripple = 1e-4
    cases = {
        "quiet": lambda theta: theta,
        "exploding": lambda theta: theta + ripple * (theta * 1e3 / ripple).sin(),
    }
    settings = (Constant(2), 64, 2, SIGMA, MetaLoss("final"))
    errors = {}
    weights = {}
    for name, curve in cases.items():
        values, made = estimates(InverseVariance(inner(curve), *settings), 8)
        errors[name] = np.abs(values - 1).max()
        weights[name] = made[-1].figures["backpropagation_weight"].item()
    assert errors["quiet"] < 1e-12
    assert weights["quiet"] == pytest.approx(1)
    assert weights["exploding"] < 0.01

    plain, _ = estimates(ES(inner(cases["exploding"]), *settings), 8)
    combined, _ = estimates(InverseVariance(inner(cases["exploding"]), *settings), 8)
    np.testing.assert_allclose(combined, plain, atol=0.2 * plain.std())


def test_one_pair_counts_half_and_half() -> None:
    """There is no variance to weigh by."""
    estimator = InverseVariance(inner(lambda theta: theta), Constant(2), 1, 2, SIGMA)
    state = estimator.init_state(ZERO, generator("start"))
    estimate, _ = estimator.estimate(ZERO, state, generator(0))
    assert estimate.figures["backpropagation_weight"] == 0.5


def test_it_pays_for_two_backward_passes() -> None:
    settings = (unroll(), Constant(HORIZON), 5, HORIZON, SIGMA)
    assert InverseVariance(*settings).num_gradients == 2 * 4 * 5 * HORIZON
    assert InverseVariance(*settings, remat=False).num_gradients == 2 * 3 * 5 * HORIZON
    with pytest.raises(ValueError, match="control must be null in InverseVariance"):
        InverseVariance(*settings, control=ControlVariate())


def test_a_fixed_tensor_has_no_gradient() -> None:
    for kind, more in ((InverseVariance, {}), (ES, {"control": ControlVariate(1.0)})):
        fixed = Perturbation(factors={"log_lr": 0.0})
        estimator = kind(unroll(), Constant(HORIZON), 3, 2, SIGMA, perturbation=fixed, **more)
        state = estimator.init_state(THETA, generator("start"))
        estimate, _ = estimator.estimate(THETA, state, generator(0))
        assert estimate.gradient["log_lr"] == 0
