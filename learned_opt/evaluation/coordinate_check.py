"""Coordinate check: how far pre-activations move in a few steps, at several widths.

An optimizer and a parametrisation carry over to other widths where they move equally far at all of
them: the slope of the change against the width, both as logarithms, is then about 0.

Legend: M seeds.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.evaluation.intervals import Interval, mean_interval
from learned_opt.inner.mup import MuP
from learned_opt.inner.tapped_loss import TappedLoss
from learned_opt.inner.unroll import Unroll

PURPOSE = "coordinate_check"  # of the keys of all draws: equal seeds see equal data at all widths
LIMIT = 0.1  # of a slope, either way

Changes = dict[str, list[float]]  # layer -> root mean square of the change, for each seed


class Slope(NamedTuple):
    """How the change of one layer goes with the width.

    Args:
        layer: the parameter that the pre-activations are made with.
        slope: of the logarithm of the change, mean over seeds with a 95% interval; infinite where a
            run diverged, NaN where the layer does not move.
        passed: whether the mean is within the limit.
    """

    layer: str
    slope: Interval
    passed: bool


@torch.no_grad()
def changes_of(unroll: Unroll, num_steps: int, num_seeds: int) -> Changes:
    """How far the pre-activations move, on one batch per seed.

    Args:
        unroll: the inner loop at one width.
        num_steps: inner steps.
        num_seeds: M.

    Returns:
        Changes: of every layer whose weights have two axes or more, in the order of the network.

    Raises:
        ValueError: no layer of the network can be seen in a trace of its loss.
    """
    keys = [(PURPOSE, seed) for seed in range(num_seeds)]
    theta = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
    theta = tree.expand(tree.to(theta, unroll.device), num_seeds)  # leaves (M, *shape)

    before = unroll.start(keys)
    batches = unroll.batches(keys, before, num_steps)
    _, after = unroll.run(theta, before, batches)

    family = unroll.family
    network = family.family if isinstance(family, MuP) else family
    tapped: TappedLoss | None = None
    changes: Changes = {}
    for seed in range(num_seeds):
        task = tree.tree_map(lambda leaf, m=seed: leaf[m], before["task"])
        batch = tree.tree_map(lambda leaf, m=seed: leaf[0, m], batches)
        pair = []
        for chains in (before, after):
            params = tree.tree_map(lambda leaf, m=seed: leaf[m], chains["params"])
            pair.append(family.effective(params, task) if isinstance(family, MuP) else params)
        if tapped is None:
            with torch.enable_grad():
                tapped = TappedLoss(network.loss, pair[0], batch, task)

        for layer, change in _layer_changes(tapped, pair, batch, task).items():
            shrinkage = family.shrinkage(layer) if isinstance(family, MuP) else 1.0
            changes.setdefault(layer, []).append(change / shrinkage)

    if not changes:
        raise ValueError("coordinate-check sees no layer in the trace of the task's loss.")
    return changes


def _layer_changes(
    tapped: TappedLoss, pair: Sequence[Tree], batch: Tree, task: Tree
) -> dict[str, float]:
    """Root mean square of the change of every layer between two sets of weights."""
    first, second = pair
    outputs = tapped.outputs(first, batch, task)
    moved = tapped.outputs(second, batch, task)

    changes = {}
    for name, results in outputs.items():
        if first[name].ndim < 2:
            continue  # a bias is added to what its layer's weights give
        differences = []
        for one, other in zip(results, moved[name], strict=True):
            differences.append((other - one).flatten())
        changes[name] = _root_mean_square(torch.cat(differences))
    return changes


def _root_mean_square(values: Tensor) -> float:
    return float(values.double().square().mean().sqrt())


def slopes_of(changes: Mapping[int, Changes], limit: float = LIMIT) -> list[Slope]:
    """The slope of every layer.

    Args:
        changes: width -> ``changes_of``.
        limit: up to which a slope is none.

    >>> widths = {64: {"w": [1.0, 2.0]}, 128: {"w": [2.0, 4.0]}, 256: {"w": [4.0, 8.0]}}
    >>> slope, = slopes_of(widths)
    >>> round(slope.slope.mean, 6), slope.passed
    (1.0, False)
    """
    widths = np.log2(list(changes))
    slopes = []
    for layer, of_first in next(iter(changes.values())).items():
        values = np.array([of_width[layer] for of_width in changes.values()])  # (widths, M)
        if not np.isfinite(values).all():
            slopes.append(Slope(layer, Interval(math.inf, math.inf, math.inf), passed=False))
            continue
        if (values == 0).any():
            slopes.append(Slope(layer, Interval(math.nan, math.nan, math.nan), passed=False))
            continue

        of_seeds = np.polyfit(widths, np.log2(values), 1)[0]  # (M,)
        assert len(of_seeds) == len(of_first)
        interval = mean_interval(of_seeds.tolist())
        slopes.append(Slope(layer, interval, passed=abs(interval.mean) <= limit))
    return slopes
