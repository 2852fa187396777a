"""Train the networks of a zoo, shard by shard, in vectorised chains."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.evaluation.prediction.zoo import is_absent, read_shard, split_of, write_shard
from learned_opt.evaluation.seeded_runs import SEGMENT, run_seeds
from learned_opt.inner.unroll import Unroll


@dataclass(frozen=True)
class Recipe:
    """What the networks of a zoo differ in.

    Args:
        num_models: networks.
        shard_size: networks that are trained side by side and share batch size and number of
            inner steps.
        lowest_lr: lower end of the learning rates, which are log-uniform.
        highest_lr: upper end.
        batch_sizes: one is drawn for each shard.
        num_steps: inner steps, one number is drawn for each shard.
        success: the figure of ``TaskFamily.evaluate`` that is to be predicted.
        seed: root of all randomness.
        snapshot_every: inner steps between two snapshots of a trajectory, a divisor of 50; 0 to
            keep trained networks alone.

    Raises:
        ValueError: a value is out of its range.
    """

    num_models: int
    shard_size: int
    lowest_lr: float
    highest_lr: float
    batch_sizes: Sequence[int]
    num_steps: Sequence[int]
    success: str
    seed: int
    snapshot_every: int = 0

    def __post_init__(self) -> None:
        if self.snapshot_every < 0 or (self.snapshot_every and SEGMENT % self.snapshot_every):
            raise ValueError(
                f"snapshot_every must be 0 or a divisor of {SEGMENT}, got {self.snapshot_every}."
            )
        if self.snapshot_every and len(set(self.num_steps)) > 1:
            raise ValueError(
                f"num_steps must be one number where snapshots are kept, got {self.num_steps}."
            )
        if self.shard_size < 1:
            raise ValueError(f"shard_size must be at least 1, got {self.shard_size}.")
        if self.num_models < 10 or self.num_models % self.shard_size:
            raise ValueError(
                f"num_models must be at least 10 and a multiple of shard_size {self.shard_size}, "
                f"got {self.num_models}."
            )
        if not 0 < self.lowest_lr < self.highest_lr:
            raise ValueError(
                f"0 < lowest_lr < highest_lr must hold, got {self.lowest_lr} and {self.highest_lr}."
            )

        for name in ("batch_sizes", "num_steps"):
            values = tuple(getattr(self, name))
            object.__setattr__(self, name, values)
            if not values or min(values) < 1:
                raise ValueError(f"{name} must hold positive numbers, got {list(values)}.")

    def as_dict(self) -> dict[str, Any]:
        """For ``zoo.json``; zoos of before there were snapshots say nothing of them."""
        values = asdict(self)
        if not self.snapshot_every:
            del values["snapshot_every"]
        return values

    @property
    def num_shards(self) -> int:
        """Number of shards of the zoo."""
        return self.num_models // self.shard_size


def populate(
    folder: Path,
    recipe: Recipe,
    unroll_of: Callable[[int], Unroll],
    progress: Callable[[str], None],
) -> None:
    """Train every shard that is not there yet, or that is broken.

    Args:
        folder: of the zoo.
        recipe: the networks to train.
        unroll_of: the inner loop for a batch size; its optimizer has the meta-parameter
            ``log_lr``.
        progress: gets a line on each shard.
    """
    for shard in range(recipe.num_shards):
        if not is_absent(folder, shard):
            try:
                read_shard(folder, shard)
                continue
            except ValueError as error:
                progress(f"{error}; training it again")

        start = time.perf_counter()
        table, params = train_shard(recipe, shard, unroll_of)
        write_shard(folder, shard, table, params)
        progress(_summary(recipe, shard, table, time.perf_counter() - start))


def _summary(recipe: Recipe, shard: int, table: pd.DataFrame, seconds: float) -> str:
    first = table.iloc[0]
    lowest, highest = table.success.min(), table.success.max()
    return (
        f"shard {shard + 1} of {recipe.num_shards}: batch size {first.batch_size}, "
        f"{first.num_steps} steps, {recipe.success} {lowest:.3f} to {highest:.3f}, "
        f"{seconds:.0f} s"
    )


def train_shard(
    recipe: Recipe, shard: int, unroll_of: Callable[[int], Unroll]
) -> tuple[pd.DataFrame, Tree]:
    """Train the networks of one shard; the same in every run.

    Returns:
        tuple[pd.DataFrame, Tree]: a row for each network, and their weights, leaves
        ``(shard_size, *shape)``, or trajectories ``(shard_size, T, *shape)``.
    """
    size = recipe.shard_size
    source = generator(recipe.seed, "zoo", shard)
    batch_size = _choose(recipe.batch_sizes, source)
    num_steps = _choose(recipe.num_steps, source)
    log_lrs = _log_uniform(recipe, source)  # (shard_size,)

    unroll = unroll_of(batch_size)
    theta = {}
    for name, parameter in unroll.optimizer.named_parameters():
        theta[name] = parameter.detach().repeat(size, *[1] * parameter.ndim)
    theta["log_lr"] = log_lrs.to(theta["log_lr"])

    models = list(range(shard * size, (shard + 1) * size))
    runs = run_seeds(
        unroll,
        theta,
        f"zoo {recipe.seed}",
        models,
        num_steps,
        size,
        snapshot_every=recipe.snapshot_every or None,
    )
    by_tensor = [leaf.flatten(1).isfinite().all(1) for leaf in tree.leaves(runs.params)]
    success = runs.heldout[recipe.success].double()
    finite = torch.stack([*by_tensor, success.isfinite().cpu()]).all(0)  # (shard_size,)
    table = pd.DataFrame(
        {
            "model": models,
            "split": split_of(models, recipe.num_models),
            "success": success.numpy(),
            "test_loss": runs.heldout["test_loss"].double().numpy(),
            "train_loss": runs.final_loss.numpy(),
            "finite": finite.numpy(),
            "learning_rate": log_lrs.double().exp().numpy(),
            "batch_size": batch_size,
            "num_steps": num_steps,
        }
    )

    return table, runs.params if runs.snapshots is None else runs.snapshots


def _log_uniform(recipe: Recipe, source: torch.Generator) -> Tensor:
    """Logarithms of the learning rates of one shard."""
    low = math.log(recipe.lowest_lr)
    high = math.log(recipe.highest_lr)
    return low + (high - low) * torch.rand(recipe.shard_size, generator=source)


def _choose(values: Sequence[int], source: torch.Generator) -> int:
    return values[int(torch.randint(len(values), (), generator=source))]
