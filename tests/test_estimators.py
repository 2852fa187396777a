"""ES and PES against quadratics whose smoothed meta-gradient is known exactly.

The inner problem is gradient descent on ``1/2 sum h x^2`` from x_0 = 1 with theta = log learning rate, so that every
loss is a closed form in the learning rates used, and the expectation over perturbations is a Gauss-Hermite quadrature.
"""

from functools import partial
from itertools import product
from typing import Self

import numpy as np
import pytest
import torch

from learned_opt import tree
from learned_opt.meta.estimators.bptt import BPTT
from learned_opt.meta.estimators.es import ES
from learned_opt.meta.estimators.nres import NRES
from learned_opt.meta.estimators.pes import PES
from learned_opt.meta.truncation import Constant, LogUniform
from learned_opt.meta.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.rng import generator
from learned_opt.symmetry import PermutationSpec
from tasks.quadratic import Quadratic
from tests.cases import FAMILIES, OPTIMIZERS, spec_of

HORIZON, SIGMA, LOG_LR = 6, 0.3, -0.5
CURVATURES = (1.0, 0.1)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


class GradientDescent(MetaOptimizer):
    """``update = -exp(log_lr) grad``, in float64."""

    def __init__(self, spec: PermutationSpec) -> None:
        super().__init__(spec)
        self.log_lr = torch.nn.Parameter(torch.tensor(LOG_LR, dtype=torch.float64))

    def init_state(self, params: dict) -> dict:
        return {"step": torch.zeros((), dtype=torch.int64)}

    def forward(self, grads: dict, state: dict, params: dict, loss: torch.Tensor) -> tuple[dict, dict]:
        return {k: -self.log_lr.exp() * g for k, g in grads.items()}, {"step": state["step"] + 1}

    def rebind(self, spec: PermutationSpec) -> Self:
        self.spec = spec
        return self


def unroll() -> Unroll:
    family = Quadratic(dim=2, condition=10.0, random_init=False, dtype=torch.float64)
    return Unroll(family, GradientDescent(spec_of(family)), compile=False)


def mean_loss(log_lrs: list[float], start: int, stop: int) -> float:
    """Mean loss over steps start..stop-1 when step t uses the learning rate ``exp(log_lrs[t])``."""
    x, losses = np.ones(2), []
    for log_lr in log_lrs[:stop]:
        losses.append(0.5 * np.sum(np.array(CURVATURES) * x**2))
        x = x * (1 - np.exp(log_lr) * np.array(CURVATURES))
    return float(np.mean(losses[start:stop]))


def es_truth() -> float:
    """Gradient of ``E_z mean_loss(theta + sigma z)``: ``E[z mean_loss] / sigma``."""
    values = [mean_loss([LOG_LR + SIGMA * z] * HORIZON, 0, HORIZON) for z in NODES]
    return float(np.sum(WEIGHTS * NODES * values) / SIGMA)


def pes_truth(unroll_length: int) -> float:
    """Gradient of the horizon's mean loss when each of two unrolls has a perturbation of its own."""
    assert 2 * unroll_length == HORIZON
    total = 0.0
    for (w1, z1), (w2, z2) in product(zip(WEIGHTS, NODES, strict=True), repeat=2):
        lrs = [LOG_LR + SIGMA * z1] * unroll_length + [LOG_LR + SIGMA * z2] * unroll_length
        first, second = mean_loss(lrs, 0, unroll_length), mean_loss(lrs, unroll_length, HORIZON)
        total += w1 * w2 * (z1 * first + (z1 + z2) * second) / 2
    return total / SIGMA


def replicates(estimator, num_unrolls: int, count: int) -> np.ndarray:
    """Independent estimates: from fresh chains, past the first, staggered horizon, averaged over a full horizon."""
    theta = {"log_lr": torch.tensor(LOG_LR, dtype=torch.float64)}
    values = []
    for replicate in range(count):
        state, run = estimator.init_state(theta, generator(replicate, "start")), []
        for step in range(2 * num_unrolls):
            estimate, state = estimator.estimate(theta, state, generator(replicate, "estimate", step))
            run.append(estimate.gradient["log_lr"].item())
        values.append(np.mean(run[num_unrolls:]))
    return np.array(values)


def standard_errors_off(values: np.ndarray, truth: float) -> float:
    return abs(values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values)))


def test_es_mean_is_the_true_gradient() -> None:
    values = replicates(ES(unroll(), Constant(HORIZON), 400, HORIZON, SIGMA), 1, 30)
    assert standard_errors_off(values, es_truth()) < 3
    assert values.std(ddof=1) / np.sqrt(len(values)) < 0.02 * abs(es_truth())  # enough draws to notice a bias


def test_pes_mean_is_the_true_gradient_and_truncated_es_is_biased() -> None:
    truth = pes_truth(HORIZON // 2)
    values = replicates(PES(unroll(), Constant(HORIZON), 400, HORIZON // 2, SIGMA), 2, 30)
    assert standard_errors_off(values, truth) < 3
    assert values.std(ddof=1) / np.sqrt(len(values)) < 0.05 * abs(truth)
    truncated = replicates(ES(unroll(), Constant(HORIZON), 400, HORIZON // 2, SIGMA), 2, 30)
    assert standard_errors_off(truncated, truth) > 10  # negative control: the test can tell


def test_pes_over_the_whole_horizon_equals_es_on_the_same_draws() -> None:
    theta = {"log_lr": torch.tensor(LOG_LR, dtype=torch.float64)}
    es, pes = (kind(unroll(), Constant(HORIZON), 8, HORIZON, SIGMA) for kind in (ES, PES))
    states = es.init_state(theta, generator("start")), pes.init_state(theta, generator("start"))
    for step in range(4):
        left, es_state = es.estimate(theta, states[0], generator(step))
        right, pes_state = pes.estimate(theta, states[1], generator(step))
        states = es_state, pes_state
        assert torch.equal(left.gradient["log_lr"], right.gradient["log_lr"])
        assert left.gradient["log_lr"] != 0


def test_nres_mean_is_the_gradient_of_full_es() -> None:
    """Its smoothed meta-loss has one perturbation for the horizon, as that of full ES."""
    values = replicates(NRES(unroll(), Constant(HORIZON), 400, HORIZON // 2, SIGMA), 2, 30)
    assert standard_errors_off(values, es_truth()) < 3
    assert values.std(ddof=1) / np.sqrt(len(values)) < 0.05 * abs(es_truth())


class Slope(Quadratic):
    """``loss(x) = sum x``, in which smoothing changes nothing."""

    def loss(self, params: dict, batch: dict, task: dict) -> torch.Tensor:
        return params["x"].sum()


class Push(GradientDescent):
    """``update = push``, whatever the gradient; at step i all of it, or only every eighth coordinate from i on."""

    def __init__(self, spec: PermutationSpec, aligned: bool) -> None:
        super().__init__(spec)
        self.aligned = aligned
        self.log_lr = torch.nn.Parameter(torch.zeros(40, dtype=torch.float64))

    def forward(self, grads: dict, state: dict, params: dict, loss: torch.Tensor) -> tuple[dict, dict]:
        now = self.aligned | (torch.arange(40) % 8 == state["step"])
        return dict.fromkeys(grads, self.log_lr * now), {"step": state["step"] + 1}


@pytest.mark.parametrize("aligned", [True, False])
def test_variances_of_pes_and_nres_are_those_of_theory(aligned) -> None:
    """T = 8 unrolls of one step. The loss of step t is ``sum_{i<t} g_i . theta``, with g_i equal or orthogonal.

    Estimates are ``mean_t xi_t y_t / sigma^2``. For PES both factors are random walks, with covariances min(s, t) + 1
    and |g|^2 min(s, t); for NRES they are eps and ``sum_{i<t} g_i . eps``. To leading order in the dimension the
    variance is the mean over s, t of the product of covariances. So reusing the noise pays where steps pull in
    different directions (Li et al. 2023) and costs where they pull alike (Vicol et al. 2021).
    """
    family, variances = Slope(dim=40, random_init=False, dtype=torch.float64), {}
    truth = np.full(40, 3.5) if aligned else np.array([(7 - j % 8) / 8 for j in range(40)])
    for kind in (PES, NRES):
        estimator = kind(Unroll(family, Push(spec_of(family), aligned), compile=False), Constant(8), 20, 1, SIGMA)
        theta, values = {"log_lr": torch.zeros(40, dtype=torch.float64)}, []
        for replicate in range(60):
            state, run = estimator.init_state(theta, generator(replicate, "start")), []
            state["step"] = torch.zeros(20, dtype=torch.int64)  # not staggered: one whole horizon
            for step in range(8):
                estimate, state = estimator.estimate(theta, state, generator(replicate, "estimate", step))
                run.append(estimate.gradient["log_lr"].numpy())
            values.append(np.mean(run, 0))
        assert standard_errors_off(np.mean(values, 1), truth.mean()) < 3
        variances[kind] = np.var(values, 0, ddof=1).mean()
    times = range(8)
    walk = np.mean([(min(s, t) + 1) * min(s, t) for s in times for t in times])
    reused = np.mean([s * t if aligned else min(s, t) for s in times for t in times])
    assert variances[NRES] / variances[PES] == pytest.approx(reused / walk, rel=0.15)
    assert (reused > walk) == aligned


def test_a_new_perturbation_every_unroll_is_pes_on_the_same_draws() -> None:
    theta = {"log_lr": torch.tensor(LOG_LR, dtype=torch.float64)}
    pes = PES(unroll(), Constant(HORIZON), 8, 2, SIGMA)
    gpes = NRES(unroll(), Constant(HORIZON), 8, 2, SIGMA, noise_period=1)
    states = pes.init_state(theta, generator("start")), gpes.init_state(theta, generator("start"))
    for step in range(9):
        left, pes_state = pes.estimate(theta, states[0], generator(step))
        right, gpes_state = gpes.estimate(theta, states[1], generator(step))
        states = pes_state, gpes_state
        assert torch.equal(left.gradient["log_lr"], right.gradient["log_lr"])


def analytic_gradient(start: int, stop: int, moved_before: int) -> float:
    """Derivative of the mean loss of steps start..stop-1 by log lr, if lr moves from step ``moved_before`` on."""
    lr, h = np.exp(LOG_LR), np.array(CURVATURES)
    total = 0.0
    for t in range(start, stop):
        factor = (1 - lr * h) ** t  # x_t, of which t - moved_before steps depend on lr
        slope = -(t - moved_before) * h * lr * (1 - lr * h) ** (t - 1) if t else np.zeros(2)
        total += float(np.sum(h * factor * slope)) / (stop - start)
    return total


def test_full_bptt_is_the_analytic_gradient_and_truncated_bptt_the_truncated_one() -> None:
    theta = {"log_lr": torch.tensor(LOG_LR, dtype=torch.float64)}
    full = BPTT(unroll(), Constant(HORIZON), 3, HORIZON)
    estimate, _ = full.estimate(theta, full.init_state(theta, generator("start")), generator(0))
    assert estimate.gradient["log_lr"].item() == pytest.approx(analytic_gradient(0, HORIZON, 0), abs=1e-9)
    numeric = (
        mean_loss([LOG_LR + 1e-5] * HORIZON, 0, HORIZON) - mean_loss([LOG_LR - 1e-5] * HORIZON, 0, HORIZON)
    ) / 2e-5
    assert analytic_gradient(0, HORIZON, 0) == pytest.approx(numeric, abs=1e-8)

    half = HORIZON // 2
    truncated = BPTT(unroll(), Constant(HORIZON), 1, half)
    state = truncated.init_state(theta, generator("start"))
    state["step"] = torch.zeros(1, dtype=torch.int64)
    first, state = truncated.estimate(theta, state, generator(0))
    second, _ = truncated.estimate(theta, state, generator(1))
    assert first.gradient["log_lr"].item() == pytest.approx(analytic_gradient(0, half, 0), abs=1e-9)
    assert second.gradient["log_lr"].item() == pytest.approx(analytic_gradient(half, HORIZON, half), abs=1e-9)
    assert abs(second.gradient["log_lr"].item() - analytic_gradient(half, HORIZON, 0)) > 1e-3  # its bias


@pytest.mark.parametrize(("kind", "steps"), [("final", [5]), ("min", [5]), ("mean", range(6))])
def test_meta_losses(kind, steps) -> None:
    """The quadratic's loss falls at every step, so that the last is the lowest."""
    theta = {"log_lr": torch.tensor(LOG_LR, dtype=torch.float64)}
    estimator = BPTT(unroll(), Constant(HORIZON), 1, HORIZON, meta_loss=kind)
    estimate, _ = estimator.estimate(theta, estimator.init_state(theta, generator("start")), generator(0))
    losses = [mean_loss([LOG_LR] * HORIZON, t, t + 1) for t in steps]
    gradients = [analytic_gradient(t, t + 1, 0) for t in steps]
    assert estimate.meta_loss.item() == pytest.approx(np.mean(losses), abs=1e-9)
    assert estimate.gradient["log_lr"].item() == pytest.approx(np.mean(gradients), abs=1e-9)


def test_recomputing_gives_the_same_gradient() -> None:
    """float32; only the order changes in which a step's contributions to the gradient of theta are added."""
    estimates = []
    for remat in (False, True):
        estimator, theta = on_network(BPTT, remat=remat, unroll_length=6)
        estimate, state = estimator.estimate(theta, estimator.init_state(theta, generator("start")), generator(0))
        estimates.append(estimate)
        assert not any(leaf.requires_grad for leaf in tree.leaves(state["chains"]))
    for key, value in estimates[0].gradient.items():
        torch.testing.assert_close(estimates[1].gradient[key], value, rtol=1e-4, atol=1e-7)
        assert value.abs().max() > 0
    assert torch.equal(estimates[0].meta_loss, estimates[1].meta_loss)


@pytest.mark.slow
def test_compiled_bptt_equals_eager_on_a_network() -> None:
    gradients = []
    for compiled in (False, True):
        estimator, theta = on_network(BPTT, compile=compiled)
        estimate, _ = estimator.estimate(theta, estimator.init_state(theta, generator("start")), generator(0))
        gradients.append(estimate.gradient)
    for key, value in gradients[0].items():
        torch.testing.assert_close(gradients[1][key], value, rtol=1e-3, atol=1e-6)


class Truncated(BPTT):
    """BPTT with the settings of the others."""

    def __init__(self, unroll, truncation, num_tasks, unroll_length, sigma=0.0) -> None:
        super().__init__(unroll, truncation, num_tasks, unroll_length)


ESTIMATORS = {"es": ES, "pes": PES, "nres": NRES, "gpes": partial(NRES, noise_period=2), "bptt": Truncated}
PERTURBED = {name: kind for name, kind in ESTIMATORS.items() if name != "bptt"}


def on_network(kind, optimizer: str = "unf", *, compile: bool = False, **settings):
    family = FAMILIES["mlp"]()
    torch.manual_seed(0)
    meta = OPTIMIZERS[optimizer](spec_of(family))
    inner = Unroll(family, meta, compile=compile)
    values = {"truncation": Constant(6), "num_tasks": 4, "unroll_length": 2} | settings
    if kind is not BPTT:
        values = {"sigma": 0.01} | values
    return kind(inner, **values), {k: p.detach() for k, p in meta.named_parameters()}


@pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS)
def test_contract(kind) -> None:
    estimator, theta = on_network(kind)
    state = estimator.init_state(theta, generator("start"))
    for step in range(5):
        before = {k: v.clone() for k, v in theta.items()}
        estimate, after = estimator.estimate(theta, state, generator(step))
        again, _ = estimator.estimate(theta, state, generator(step))
        assert all(torch.equal(before[k], theta[k]) for k in theta)  # pure
        for key, value in theta.items():
            assert estimate.gradient[key].shape == value.shape
            assert estimate.gradient[key].isfinite().all()
            assert torch.equal(estimate.gradient[key], again.gradient[key])  # a function of state and generator
        assert estimate.num_inner_steps == estimator.num_inner_steps == (1 if kind is Truncated else 2) * 4 * 2
        assert estimate.meta_loss.isfinite()
        state = after


@pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS)
def test_restarts_come_at_the_horizon_and_are_staggered(kind) -> None:
    estimator, theta = on_network(kind, num_tasks=32)
    state = estimator.init_state(theta, generator("start"))
    assert set(state["step"].tolist()) == {0, 2, 4}
    for step in range(7):
        _, after = estimator.estimate(theta, state, generator(step))
        expected = torch.where(state["step"] >= 6, 0, state["step"]) + 2
        assert torch.equal(after["step"], expected)
        inner = after["chains"]["opt_state"]["step"][:32]
        fresh = state["step"] >= 6
        assert (inner[fresh] == 2).all()  # a restarted chain has made one unroll
        state = after
    copies = state["chains"]["opt_state"]["step"].unflatten(0, (-1, 32))
    assert (copies == copies[0]).all()


@pytest.mark.parametrize("kind", ESTIMATORS.values(), ids=ESTIMATORS)
def test_a_pair_that_diverges_is_left_out_counted_and_restarted(kind) -> None:
    estimator, theta = on_network(kind, optimizer="sgdm")
    state = estimator.init_state(theta, generator("start"))
    healthy, _ = estimator.estimate(theta, state, generator(0))
    state["chains"]["params"]["layers.0.weight"][1] = torch.nan  # the plus chain of pair 1
    estimate, after = estimator.estimate(theta, state, generator(0))
    assert (estimate.num_nonfinite.item(), healthy.num_nonfinite.item()) == (1, 0)
    assert all(leaf.isfinite().all() for leaf in estimate.gradient.values())
    assert estimate.meta_loss.isfinite()
    following, _ = estimator.estimate(theta, after, generator(1))
    assert following.num_nonfinite == 0


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sigma": -1.0}, "sigma must be positive, got -1.0."),
        ({"num_tasks": 0}, "num_tasks must be at least 1, got 0."),
        ({"unroll_length": 0}, "unroll_length must be at least 1, got 0."),
        ({"meta_loss": "last"}, "meta_loss must be one of mean, final, min, got 'last'."),
    ],
)
@pytest.mark.parametrize("kind", PERTURBED.values(), ids=PERTURBED)
def test_bad_values_are_named(kind, settings, message) -> None:
    with pytest.raises(ValueError, match=message):
        on_network(kind, **settings)


def test_truncations() -> None:
    draws = [LogUniform(10, 1000).sample(generator(i)) for i in range(2000)]
    assert 10 <= min(draws) < 12
    assert 900 < max(draws) <= 1000
    assert np.mean([draw < 100 for draw in draws]) == pytest.approx(0.5, abs=0.04)  # 100 is the middle in log scale
    assert Constant(7).sample(generator(0)) == 7
    with pytest.raises(ValueError, match="horizon must be at least 1, got 0"):
        Constant(0)
    with pytest.raises(ValueError, match="1 <= shortest <= longest, got 5, 4"):
        LogUniform(5, 4)
