"""Bias, variance and cost of meta-gradient estimators at a fixed theta, against a reference.

Legend: R replicates, P meta-parameters.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from math import inf, sqrt
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import cosine_similarity

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.estimators.shared_estimator import SharedEstimator

HEADINGS = (
    "estimator",
    "bias",
    "stderr",
    "cosine",
    "SNR",
    "var",
    "var x grads",
    "grads",
    "ms",
    "left out",
)


@dataclass(frozen=True)
class Estimates:
    """Independent estimates of one estimator.

    Args:
        gradients: parameter name -> ``(R, size)``.
        num_gradients: what one estimate costs, in evaluations of inner gradients, backward passes
            counted.
        seconds: median time of one estimate.
        num_nonfinite: tasks that were left out, all estimates together.
    """

    gradients: dict[str, Tensor]
    num_gradients: int
    seconds: float
    num_nonfinite: int

    @property
    def flat(self) -> Tensor:
        """All parameters side by side, ``(R, P)``."""
        return torch.cat(list(self.gradients.values()), 1)


def collect(
    estimator: SharedEstimator, theta: Tree, horizon: int, replicates: int, seed: int
) -> Estimates:
    """Draw independent estimates.

    Each comes from fresh chains that have passed their first, staggered restart.

    Args:
        estimator: the one to measure.
        theta: meta-parameters, held fixed.
        horizon: inner steps until restart.
        replicates: R.
        seed: root of all randomness.
    """
    burn_in = 0
    if estimator.unroll_length < horizon:
        burn_in = -(-horizon // estimator.unroll_length)

    gradients = []
    seconds = []
    num_nonfinite = 0
    for replicate in range(replicates):
        state = estimator.init_state(theta, generator(seed, "lab", replicate))
        gradient = {}
        for step in range(burn_in + 1):
            source = generator(seed, "lab", replicate, step)
            start = time.perf_counter()
            estimate, state = estimator.estimate(theta, state, source)
            num_nonfinite += int(estimate.num_nonfinite)  # waits for the device
            seconds.append(time.perf_counter() - start)
            gradient = estimate.gradient

        gradients.append(tree.tree_map(lambda leaf: leaf.double().flatten().cpu(), gradient))

    return Estimates(
        gradients=tree.stack(gradients),
        num_gradients=estimator.num_gradients,
        seconds=float(torch.tensor(seconds).median()),
        num_nonfinite=num_nonfinite,
    )


def summarise(name: str, estimates: Estimates, reference: Tensor) -> dict[str, Any]:
    """One row of the table.

    ``bias`` is how much longer the mean estimate is than the reference along the reference, 0 for
    none and -1 for no signal at all; the standard error is that of this number. ``SNR`` is the
    squared norm of the mean over the total variance, both without bias, for one estimate.

    Args:
        name: of the estimator.
        estimates: at least two.
        reference: ``(P,)``.
    """
    flat = estimates.flat  # (R, P)
    along = flat @ reference / reference.square().sum()  # (R,)
    variance = float(flat.var(0).sum())
    values = (
        name,
        float(along.mean()) - 1,
        float(along.std()) / sqrt(len(flat)),
        float(cosine_similarity(flat, reference[None]).mean()),
        snr(flat),
        variance,
        variance * estimates.num_gradients,
        estimates.num_gradients,
        1e3 * estimates.seconds,
        estimates.num_nonfinite,
    )

    return dict(zip(HEADINGS, values, strict=True))


def snr(gradients: Tensor) -> float:
    """Squared norm of the mean over the total variance.

    0 where noise hides the mean, infinite where there is no noise.

    Args:
        gradients: ``(R, size)``.
    """
    variance = float(gradients.var(0).sum())
    squared_mean = float(gradients.mean(0).square().sum()) - variance / len(gradients)
    if variance > 0:
        return max(squared_mean, 0.0) / variance
    return inf if squared_mean > 0 else 0.0


def by_tensor(estimates: Estimates, reference: Mapping[str, Tensor]) -> dict[str, dict[str, float]]:
    """Variance, SNR and norm of the reference for each parameter of theta."""
    figures = {}
    for name, values in estimates.gradients.items():
        figures[name] = {
            "variance": float(values.var(0).sum()),
            "snr": snr(values),
            "reference_norm": float(reference[name].norm()),
        }
    return figures
