"""Bias, variance and cost of meta-gradient estimators at a fixed theta, against a reference gradient.

Legend: R replicates, P meta-parameters.
"""

import time
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.estimators.base import GradientEstimator

HEADINGS = (
    "estimator",
    "bias",
    "stderr",
    "cosine",
    "SNR",
    "var",
    "var x steps",
    "steps",
    "ms",
    "left out",
)


@dataclass(frozen=True)
class Estimates:
    """Independent estimates of one estimator.

    Args:
        gradients: parameter name -> ``(R, size)``.
        num_inner_steps: inner steps of one estimate.
        seconds: median time of one estimate.
        num_nonfinite: tasks that were left out, all estimates together.
    """

    gradients: dict[str, Tensor]
    num_inner_steps: int
    seconds: float
    num_nonfinite: int

    @property
    def flat(self) -> Tensor:
        """All parameters side by side, ``(R, P)``."""
        return torch.cat(list(self.gradients.values()), 1)


def collect(
    estimator: GradientEstimator, theta: Tree, horizon: int, replicates: int, seed: int
) -> Estimates:
    """Draw independent estimates, each from fresh chains that have passed their first, staggered restart.

    Args:
        estimator: what to measure.
        theta: meta-parameters, held fixed.
        horizon: inner steps until restart.
        replicates: R.
        seed: root of all randomness.
    """
    burn_in = 0 if estimator.unroll_length >= horizon else -(-horizon // estimator.unroll_length)
    gradients, seconds, nonfinite = [], [], 0
    for replicate in range(replicates):
        state = estimator.init_state(theta, generator(seed, "lab", replicate))
        gradient = {}
        for step in range(burn_in + 1):
            start = time.perf_counter()
            estimate, state = estimator.estimate(
                theta, state, generator(seed, "lab", replicate, step)
            )
            nonfinite += int(estimate.num_nonfinite)  # waits for the device
            seconds.append(time.perf_counter() - start)
            gradient = estimate.gradient
        gradients.append(tree.tree_map(lambda leaf: leaf.double().flatten().cpu(), gradient))
    median = float(torch.tensor(seconds).median())
    return Estimates(tree.stack(gradients), estimator.num_inner_steps, median, nonfinite)


def summarise(name: str, estimates: Estimates, reference: Tensor) -> dict[str, Any]:
    """One row of the table.

    ``bias`` is how much longer the mean estimate is than the reference along the reference, 0 for none and -1 for no
    signal at all; the standard error is that of this number. ``SNR`` is the squared norm of the mean over the
    total variance, both without bias, for one estimate.

    Args:
        name: of the estimator.
        estimates: at least two.
        reference: ``(P,)``.
    """
    flat = estimates.flat
    along = flat @ reference / reference.square().sum()
    cosine = torch.nn.functional.cosine_similarity(flat, reference[None]).mean()
    variance = float(flat.var(0).sum())
    values = (
        name,
        float(along.mean()) - 1,
        float(along.std()) / sqrt(len(flat)),
        float(cosine),
        snr(flat),
        variance,
        variance * estimates.num_inner_steps,
        estimates.num_inner_steps,
        1e3 * estimates.seconds,
        estimates.num_nonfinite,
    )
    return dict(zip(HEADINGS, values, strict=True))


def snr(gradients: Tensor) -> float:
    """Squared norm of the mean over the total variance, ``(R, size) ->`` one number; 0 where noise hides the mean."""
    variance = float(gradients.var(0).sum())
    squared_mean = float(gradients.mean(0).square().sum()) - variance / len(gradients)
    return max(squared_mean, 0.0) / variance if variance > 0 else 0.0


def blocks(estimates: Estimates, reference: dict[str, Tensor]) -> dict[str, dict[str, float]]:
    """Variance, SNR and norm of the reference for each parameter of theta."""
    return {
        name: {
            "variance": float(values.var(0).sum()),
            "snr": snr(values),
            "reference_norm": float(reference[name].norm()),
        }
        for name, values in estimates.gradients.items()
    }
