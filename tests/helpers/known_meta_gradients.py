"""What the tests of estimators share: a quadratic whose meta-gradients are known, and small
networks.

The inner problem is gradient descent on ``1/2 sum h x^2`` from x_0 = 1 with theta = log
learning rate, so that every loss is a closed form in the learning rates used, and the
expectation over perturbations is a Gauss-Hermite quadrature.
"""

from itertools import product
from typing import Self

import numpy as np
import torch

from learned_opt.core.rng import generator
from learned_opt.estimators.bptt import BPTT
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry import PermutationSpec
from tasks.quadratic import Quadratic
from tests.cases import FAMILIES, OPTIMIZERS, spec_of

HORIZON = 6
SIGMA = 0.3
LOG_LR = -0.5
CURVATURES = (1.0, 0.1)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
WEIGHTS = WEIGHTS / WEIGHTS.sum()
THETA = {"log_lr": torch.tensor(LOG_LR, dtype=torch.float64)}


class GradientDescent(MetaOptimizer):
    """``update = -exp(log_lr) grad``, in float64."""

    def __init__(self, spec: PermutationSpec) -> None:
        super().__init__(spec)
        self.log_lr = torch.nn.Parameter(torch.tensor(LOG_LR, dtype=torch.float64))

    def init_state(self, params: dict) -> dict:
        return {"step": torch.zeros((), dtype=torch.int64)}

    def forward(
        self, grads: dict, state: dict, params: dict, loss: torch.Tensor
    ) -> tuple[dict, dict]:
        return {k: -self.log_lr.exp() * g for k, g in grads.items()}, {"step": state["step"] + 1}

    def rebind(self, spec: PermutationSpec) -> Self:
        self.spec = spec
        return self


class Slope(Quadratic):
    """``loss(x) = sum x``, in which smoothing changes nothing."""

    def loss(self, params: dict, batch: dict, task: dict) -> torch.Tensor:
        return params["x"].sum()


def unroll() -> Unroll:
    family = Quadratic(dim=2, condition=10.0, random_init=False, dtype=torch.float64)
    return Unroll(family, GradientDescent(spec_of(family)), compile=False)


def mean_loss(log_lrs: list[float], start: int, stop: int) -> float:
    """Mean loss over steps start..stop-1 when step t uses the learning rate
    ``exp(log_lrs[t])``.
    """
    x = np.ones(2)
    losses = []
    for log_lr in log_lrs[:stop]:
        losses.append(0.5 * np.sum(np.array(CURVATURES) * x**2))
        x = x * (1 - np.exp(log_lr) * np.array(CURVATURES))
    return float(np.mean(losses[start:stop]))


def es_truth(sigma: float = SIGMA) -> float:
    """Gradient of ``E_z mean_loss(theta + sigma z)``: ``E[z mean_loss] / sigma``."""
    values = [mean_loss([LOG_LR + sigma * z] * HORIZON, 0, HORIZON) for z in NODES]
    return float(np.sum(WEIGHTS * NODES * values) / sigma)


def pes_truth(unroll_length: int, sigma: float = SIGMA) -> float:
    """Gradient of the horizon's mean loss when each of two unrolls has a perturbation of
    its own.
    """
    assert 2 * unroll_length == HORIZON
    total = 0.0
    for (w1, z1), (w2, z2) in product(zip(WEIGHTS, NODES, strict=True), repeat=2):
        lrs = [LOG_LR + sigma * z1] * unroll_length + [LOG_LR + sigma * z2] * unroll_length
        first = mean_loss(lrs, 0, unroll_length)
        second = mean_loss(lrs, unroll_length, HORIZON)
        total += w1 * w2 * (z1 * first + (z1 + z2) * second) / 2
    return total / sigma


def replicates(estimator, num_unrolls: int, count: int) -> np.ndarray:
    """Independent estimates: from fresh chains, past the first, staggered horizon, averaged
    over a full horizon.
    """
    values = []
    for replicate in range(count):
        state = estimator.init_state(THETA, generator(replicate, "start"))
        run = []
        for step in range(2 * num_unrolls):
            estimate, state = estimator.estimate(
                THETA, state, generator(replicate, "estimate", step)
            )
            run.append(estimate.gradient["log_lr"].item())
        values.append(np.mean(run[num_unrolls:]))
    return np.array(values)


def standard_errors_off(values: np.ndarray, truth: float) -> float:
    return abs(values.mean() - truth) / (values.std(ddof=1) / np.sqrt(len(values)))


def analytic_gradient(start: int, stop: int, moved_before: int) -> float:
    """Derivative of the mean loss of steps start..stop-1 by log lr, if lr moves from step
    ``moved_before`` on.
    """
    lr = np.exp(LOG_LR)
    h = np.array(CURVATURES)
    total = 0.0
    for t in range(start, stop):
        factor = (1 - lr * h) ** t  # x_t, of which t - moved_before steps depend on lr
        slope = -(t - moved_before) * h * lr * (1 - lr * h) ** (t - 1) if t else np.zeros(2)
        total += float(np.sum(h * factor * slope)) / (stop - start)
    return total


def on_network(kind, optimizer: str = "unf", *, compile: bool = False, **settings):
    family = FAMILIES["mlp"]()
    torch.manual_seed(0)
    meta = OPTIMIZERS[optimizer](spec_of(family))
    inner = Unroll(family, meta, compile=compile)
    values = {"truncation": Constant(6), "num_tasks": 4, "unroll_length": 2} | settings
    if kind is not BPTT:  # which has no noise
        values = {"sigma": 0.01} | values
    return kind(inner, **values), {k: p.detach() for k, p in meta.named_parameters()}
