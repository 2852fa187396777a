"""Estimators against closed forms: on quadratics whose smoothed meta-gradient is known, and
in theory's variances.
"""

import numpy as np
import pytest
import torch

from learned_opt.core.rng import generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.estimators.es import ES
from learned_opt.estimators.nres import NRES
from learned_opt.estimators.pes import PES
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.symmetry import PermutationSpec
from tests.cases import spec_of
from tests.helpers.known_meta_gradients import (
    HORIZON,
    LOG_LR,
    SIGMA,
    THETA,
    GradientDescent,
    Slope,
    analytic_gradient,
    es_truth,
    mean_loss,
    pes_truth,
    replicates,
    standard_errors_off,
    unroll,
)


def test_es_mean_is_the_true_gradient() -> None:
    values = replicates(ES(unroll(), Constant(HORIZON), 400, HORIZON, SIGMA), 1, 30)
    assert standard_errors_off(values, es_truth()) < 3
    assert values.std(ddof=1) / np.sqrt(len(values)) < 0.02 * abs(
        es_truth()
    )  # enough draws to notice a bias


def test_pes_mean_is_the_true_gradient_and_truncated_es_is_biased() -> None:
    truth = pes_truth(HORIZON // 2)
    values = replicates(PES(unroll(), Constant(HORIZON), 400, HORIZON // 2, SIGMA), 2, 30)
    assert standard_errors_off(values, truth) < 3
    assert values.std(ddof=1) / np.sqrt(len(values)) < 0.05 * abs(truth)
    truncated = replicates(ES(unroll(), Constant(HORIZON), 400, HORIZON // 2, SIGMA), 2, 30)
    assert standard_errors_off(truncated, truth) > 10  # negative control: the test can tell


def test_nres_mean_is_the_gradient_of_full_es() -> None:
    """Its smoothed meta-loss has one perturbation for the horizon, as that of full ES."""
    values = replicates(NRES(unroll(), Constant(HORIZON), 400, HORIZON // 2, SIGMA), 2, 30)
    assert standard_errors_off(values, es_truth()) < 3
    assert values.std(ddof=1) / np.sqrt(len(values)) < 0.05 * abs(es_truth())


class Push(GradientDescent):
    """``update = push``, whatever the gradient; at step i all of it, or only every eighth
    coordinate from i on.
    """

    def __init__(self, spec: PermutationSpec, aligned: bool) -> None:
        super().__init__(spec)
        self.aligned = aligned
        self.log_lr = torch.nn.Parameter(torch.zeros(40, dtype=torch.float64))

    def forward(
        self, grads: dict, state: dict, params: dict, loss: torch.Tensor
    ) -> tuple[dict, dict]:
        moves = self.aligned | (torch.arange(40) % 8 == state["step"])
        return dict.fromkeys(grads, self.log_lr * moves), {"step": state["step"] + 1}


@pytest.mark.parametrize("aligned", [True, False])
def test_variances_of_pes_and_nres_are_those_of_theory(aligned) -> None:
    """T = 8 unrolls of one step. The loss of step t is ``sum_{i<t} g_i . theta``, with g_i
    equal or orthogonal.

    Estimates are ``mean_t xi_t y_t / sigma^2``. For PES both factors are random walks, with
    covariances min(s, t) + 1 and |g|^2 min(s, t); for NRES they are eps and ``sum_{i<t} g_i
    . eps``. To leading order in the dimension the variance is the mean over s, t of the
    product of covariances. So reusing the noise pays where steps pull in different
    directions (Li et al. 2023) and costs where they pull alike (Vicol et al. 2021).
    """
    family = Slope(dim=40, random_init=False, dtype=torch.float64)
    variances = {}
    truth = np.full(40, 3.5) if aligned else np.array([(7 - j % 8) / 8 for j in range(40)])
    for kind in (PES, NRES):
        estimator = kind(
            Unroll(family, Push(spec_of(family), aligned), compile=False), Constant(8), 20, 1, SIGMA
        )
        theta = {"log_lr": torch.zeros(40, dtype=torch.float64)}
        values = []
        for replicate in range(60):
            state = estimator.init_state(theta, generator(replicate, "start"))
            run = []
            state["step"] = torch.zeros(20, dtype=torch.int64)  # not staggered: one whole horizon
            for step in range(8):
                estimate, state = estimator.estimate(
                    theta, state, generator(replicate, "estimate", step)
                )
                run.append(estimate.gradient["log_lr"].numpy())
            values.append(np.mean(run, 0))
        assert standard_errors_off(np.mean(values, 1), truth.mean()) < 3
        variances[kind] = np.var(values, 0, ddof=1).mean()
    times = range(8)
    walk = np.mean([(min(s, t) + 1) * min(s, t) for s in times for t in times])
    reused = np.mean([s * t if aligned else min(s, t) for s in times for t in times])
    assert variances[NRES] / variances[PES] == pytest.approx(reused / walk, rel=0.15)
    assert (reused > walk) == aligned


def test_full_bptt_is_the_analytic_gradient_and_truncated_bptt_the_truncated_one() -> None:
    full = BPTT(unroll(), Constant(HORIZON), 3, HORIZON)
    estimate, _ = full.estimate(THETA, full.init_state(THETA, generator("start")), generator(0))
    assert estimate.gradient["log_lr"].item() == pytest.approx(
        analytic_gradient(0, HORIZON, 0), abs=1e-9
    )
    numeric = (
        mean_loss([LOG_LR + 1e-5] * HORIZON, 0, HORIZON)
        - mean_loss([LOG_LR - 1e-5] * HORIZON, 0, HORIZON)
    ) / 2e-5
    assert analytic_gradient(0, HORIZON, 0) == pytest.approx(numeric, abs=1e-8)

    half = HORIZON // 2
    truncated = BPTT(unroll(), Constant(HORIZON), 1, half)
    state = truncated.init_state(THETA, generator("start"))
    state["step"] = torch.zeros(1, dtype=torch.int64)
    first, state = truncated.estimate(THETA, state, generator(0))
    second, _ = truncated.estimate(THETA, state, generator(1))
    assert first.gradient["log_lr"].item() == pytest.approx(analytic_gradient(0, half, 0), abs=1e-9)
    assert second.gradient["log_lr"].item() == pytest.approx(
        analytic_gradient(half, HORIZON, half), abs=1e-9
    )
    assert (
        abs(second.gradient["log_lr"].item() - analytic_gradient(half, HORIZON, 0)) > 1e-3
    )  # its bias
