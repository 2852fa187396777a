"""Learning rates of baselines, tuned on seeds apart from the held-out ones."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.evaluation.progress import SILENT, Progress
from learned_opt.evaluation.seeded_runs import Runs, run_seeds
from learned_opt.evaluation.tuning_archive import BEST_TEST_LOSS, SCORES, Archive
from learned_opt.evaluation.tuning_facts import fingerprint
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer


class Tuned(NamedTuple):
    """The outcome of a learning-rate grid.

    Args:
        learning_rates: the grid.
        scores: criterion -> mean over the tuning seeds for each learning rate, infinite where a
            run diverged.
        num_reused: runs that an archive held.
    """

    learning_rates: list[float]
    scores: dict[str, Tensor]
    num_reused: int

    def best(self, criterion: str) -> float:
        """The learning rate of the lowest score."""
        return self.learning_rates[int(self.scores[criterion].argmin())]

    def at_edge(self, criterion: str) -> bool:
        """Whether the best learning rate lies at an end of the grid, which was too short then."""
        return self.best(criterion) in (self.learning_rates[0], self.learning_rates[-1])


def log_grid(lowest: float, highest: float, count: int) -> list[float]:
    """Learning rates that are evenly spaced in log scale.

    Args:
        lowest: first learning rate.
        highest: last learning rate.
        count: how many, at least 2.

    Raises:
        ValueError: not 0 < lowest < highest, or fewer than two.

    >>> log_grid(0.01, 1.0, 3)
    [0.01, 0.1, 1.0]
    """
    _check_grid(lowest, highest, count)

    # rounded, so that they are the same on every machine and an archive finds them
    return [float(f"{lr:.12g}") for lr in np.geomspace(lowest, highest, count)]


def linear_grid(lowest: float, highest: float, count: int) -> list[float]:
    """Learning rates that are evenly spaced.

    Args:
        lowest: first learning rate.
        highest: last learning rate.
        count: how many, at least 2.

    Raises:
        ValueError: not 0 < lowest < highest, or fewer than two.

    >>> linear_grid(0.0005, 0.01, 20)[:3]
    [0.0005, 0.001, 0.0015]
    """
    _check_grid(lowest, highest, count)
    return [float(f"{lr:.12g}") for lr in np.linspace(lowest, highest, count)]


def tune(
    unroll: Unroll,
    constructor: Callable[..., MetaOptimizer],
    learning_rates: list[float],
    num_seeds: int,
    horizon: int,
    num_chains: int,
    archive: Path | None = None,
    progress: Progress = SILENT,
    heldout_every: int | None = None,
) -> Tuned:
    """Run every learning rate on the same tuning seeds; runs that the archive has are not repeated.

    Args:
        unroll: the inner loop of the optimizer to tune.
        constructor: ``(spec, lr=...)``, builds the optimizer.
        learning_rates: the grid; its length is the number of tries.
        num_seeds: runs per learning rate.
        horizon: inner steps.
        num_chains: runs that go side by side; each such block is archived when it is done.
        archive: folder of tuning runs; None to keep none.
        progress: told of the runs as they go on, those of the archive at once.
        heldout_every: inner steps between two measurements of the test loss, whose lowest value is
            one more score; None to measure none.

    Raises:
        ValueError: the archive cannot name the optimizer.
    """
    facts = fingerprint(unroll, constructor, horizon) if archive else {}
    scores = SCORES
    if heldout_every:
        scores = (*SCORES, BEST_TEST_LOSS)
        facts = {**facts, "heldout_every": heldout_every}  # another file: others have no such score

    kept = Archive(archive, facts, scores)
    wanted = [(lr, seed) for lr in learning_rates for seed in range(num_seeds)]
    missing = kept.missing(wanted)
    num_reused = len(wanted) - len(missing)
    progress.advance(num_reused)

    for start in range(0, len(missing), num_chains):
        block = missing[start : start + num_chains]
        runs = _run_block(unroll, constructor, block, horizon, num_chains, progress, heldout_every)
        table = pd.DataFrame(block, columns=["lr", "seed"])
        for name in scores:
            values = _best_test_loss(runs) if name == BEST_TEST_LOSS else getattr(runs, name)
            table[name] = values.numpy()
        kept.add(table)

    return Tuned(learning_rates, kept.scores(learning_rates, num_seeds), num_reused)


def _run_block(
    unroll: Unroll,
    constructor: Callable[..., MetaOptimizer],
    block: Sequence[tuple[float, int]],
    horizon: int,
    num_chains: int,
    progress: Progress,
    heldout_every: int | None,
) -> Runs:
    """Runs side by side, one for each pair of learning rate and seed."""
    seeds = [seed for _, seed in block]
    thetas = [theta_at(constructor, unroll.optimizer, lr) for lr, _ in block]
    theta = tree.to(tree.stack(thetas), unroll.device)  # leaves (M, *shape)
    return run_seeds(unroll, theta, "tune", seeds, horizon, num_chains, progress, heldout_every)


def _best_test_loss(runs: Runs) -> Tensor:
    """The lowest measured test loss of every run ``(M,)``, infinite where none is finite."""
    losses = runs.test_losses
    assert losses is not None, "measured with heldout_every"
    return losses.nan_to_num(nan=math.inf).amin(0)


def theta_at(constructor: Callable[..., MetaOptimizer], like: MetaOptimizer, lr: float) -> Tree:
    """Theta of a hand-designed optimizer at a learning rate.

    Args:
        constructor: ``(spec, lr=...)``, builds the optimizer.
        like: an optimizer of the weight space that theta is for.
        lr: the learning rate.
    """
    optimizer = constructor(like.spec, lr=lr)
    return {name: parameter.detach() for name, parameter in optimizer.named_parameters()}


def _check_grid(lowest: float, highest: float, count: int) -> None:
    if not 0 < lowest < highest:
        raise ValueError(
            f"learning rates must satisfy 0 < lowest < highest, got {lowest} and {highest}."
        )
    if count < 2:
        raise ValueError(f"count of learning rates must be at least 2, got {count}.")
