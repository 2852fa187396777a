"""Learning rates of baselines, tuned on seeds of their own."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.evaluation.seeded_runs import run_seeds
from learned_opt.evaluation.tuning_archive import SCORES, Archive, fingerprint
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer


class Tuned(NamedTuple):
    """The outcome of a learning-rate grid.

    Args:
        learning_rates: the grid.
        scores: criterion -> mean over the tuning seeds for each learning rate, infinite where a run diverged.
        num_reused: runs that an archive held.
    """

    learning_rates: list[float]
    scores: dict[str, Tensor]
    num_reused: int

    def best(self, criterion: str) -> float:
        """The learning rate of the lowest score."""
        return self.learning_rates[int(self.scores[criterion].argmin())]

    def at_edge(self, criterion: str) -> bool:
        """Whether the best learning rate lies at an end of the grid, so that the grid was too short."""
        return self.best(criterion) in (self.learning_rates[0], self.learning_rates[-1])


def log_grid(lowest: float, highest: float, count: int) -> list[float]:
    """``count`` learning rates, evenly spaced in log scale.

    Raises:
        ValueError: not 0 < lowest < highest, or fewer than two.
    """
    if not 0 < lowest < highest:
        raise ValueError(
            f"learning rates must satisfy 0 < lowest < highest, got {lowest} and {highest}."
        )
    if count < 2:
        raise ValueError(f"count of learning rates must be at least 2, got {count}.")
    return [
        float(f"{lr:.12g}") for lr in np.geomspace(lowest, highest, count)
    ]  # the same on every machine


def tune(
    unroll: Unroll,
    constructor: Callable[..., MetaOptimizer],
    learning_rates: list[float],
    num_seeds: int,
    horizon: int,
    num_chains: int,
    archive: Path | None = None,
) -> Tuned:
    """Run every learning rate on the same tuning seeds; runs that the archive has are not run again.

    Args:
        unroll: the inner loop of the optimizer to tune.
        constructor: ``(spec, lr=...)``, builds the optimizer.
        learning_rates: the grid; its length is the number of tries.
        num_seeds: runs per learning rate.
        horizon: inner steps.
        num_chains: runs that go side by side; each such block is archived when it is done.
        archive: folder of tuning runs; None to keep none.

    Raises:
        ValueError: the archive cannot name the optimizer.
    """
    facts = fingerprint(unroll, constructor, horizon) if archive else {}
    kept = Archive(archive, facts)
    missing = kept.missing([(lr, seed) for lr in learning_rates for seed in range(num_seeds)])
    for start in range(0, len(missing), num_chains):
        block = missing[start : start + num_chains]
        many = tree.stack([theta_at(constructor, unroll.optimizer, lr) for lr, _ in block])
        seeds = [seed for _, seed in block]
        runs = run_seeds(unroll, tree.to(many, unroll.device), "tune", seeds, horizon, num_chains)
        rows = {"lr": [lr for lr, _ in block], "seed": seeds}
        kept.add(pd.DataFrame(rows | {name: getattr(runs, name).numpy() for name in SCORES}))
    num_reused = len(learning_rates) * num_seeds - len(missing)
    return Tuned(learning_rates, kept.scores(learning_rates, num_seeds), num_reused)


def theta_at(constructor: Callable[..., MetaOptimizer], like: MetaOptimizer, lr: float) -> Tree:
    """Theta of a hand-designed optimizer at a learning rate."""
    return {name: p.detach() for name, p in constructor(like.spec, lr=lr).named_parameters()}
