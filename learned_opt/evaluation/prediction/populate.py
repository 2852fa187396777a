"""Train the networks of a zoo, shard by shard, in vectorised chains."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd
import torch

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.evaluation.prediction.zoo import read_shard, split_of, write_shard
from learned_opt.evaluation.seeded_runs import run_seeds
from learned_opt.inner.unroll import Unroll


@dataclass(frozen=True)
class Recipe:
    """What the networks of a zoo differ in.

    Args:
        num_models: networks.
        shard_size: networks that are trained side by side and share batch size and number of steps.
        lowest_lr: lower end of the learning rates, which are log-uniform.
        highest_lr: upper end.
        batch_sizes: one is drawn for each shard.
        num_steps: inner steps, one number is drawn for each shard.
        success: the figure of ``TaskFamily.evaluate`` that is to be predicted.
        seed: root of all randomness.

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

    def __post_init__(self) -> None:
        if self.shard_size < 1:
            raise ValueError(f"shard_size must be at least 1, got {self.shard_size}.")
        if self.num_models < 10 or self.num_models % self.shard_size:
            raise ValueError(
                f"num_models must be at least 10 and a multiple of shard_size {self.shard_size}, got {self.num_models}."
            )
        if not 0 < self.lowest_lr < self.highest_lr:
            raise ValueError(
                f"0 < lowest_lr < highest_lr must hold, got {self.lowest_lr} and {self.highest_lr}."
            )
        for name in ("batch_sizes", "num_steps"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
            if not getattr(self, name) or min(getattr(self, name)) < 1:
                raise ValueError(
                    f"{name} must hold positive numbers, got {list(getattr(self, name))}."
                )

    @property
    def num_shards(self) -> int:
        """Number of shards."""
        return self.num_models // self.shard_size


def populate(
    folder: Path, recipe: Recipe, unroll_of: Callable[[int], Unroll], say: Callable[[str], None]
) -> None:
    """Train every shard that is not there yet, or that is broken.

    Args:
        folder: of the zoo.
        recipe: what to train.
        unroll_of: the inner loop for a batch size; its optimizer has the meta-parameter ``log_lr``.
        say: called with a line for each shard.
    """
    for shard in range(recipe.num_shards):
        try:
            read_shard(folder, shard)
            continue
        except ValueError as error:
            if "missing" not in str(error):
                say(f"{error}; training it again")
        start = time.perf_counter()
        table, params = train_shard(recipe, shard, unroll_of)
        write_shard(folder, shard, table, params)
        first, seconds = table.iloc[0], time.perf_counter() - start
        say(
            f"shard {shard + 1} of {recipe.num_shards}: batch size {first.batch_size}, {first.num_steps} steps, "
            f"{recipe.success} {table.success.min():.3f} to {table.success.max():.3f}, {seconds:.0f} s"
        )


def train_shard(
    recipe: Recipe, shard: int, unroll_of: Callable[[int], Unroll]
) -> tuple[pd.DataFrame, tree.Tree]:
    """Train the networks of one shard; the same in every run.

    Returns:
        tuple[pd.DataFrame, Tree]: a row for each network, and their weights, leaves ``(shard_size, *shape)``.
    """
    source, size = generator(recipe.seed, "zoo", shard), recipe.shard_size
    batch_size, num_steps = (
        _choose(values, source) for values in (recipe.batch_sizes, recipe.num_steps)
    )
    low, high = math.log(recipe.lowest_lr), math.log(recipe.highest_lr)
    log_lrs = low + (high - low) * torch.rand(size, generator=source)
    unroll = unroll_of(batch_size)
    theta = {
        name: p.detach().repeat(size, *[1] * p.ndim)
        for name, p in unroll.optimizer.named_parameters()
    }
    theta["log_lr"] = log_lrs.to(theta["log_lr"])
    models = list(range(shard * size, (shard + 1) * size))
    runs = run_seeds(unroll, theta, f"zoo {recipe.seed}", models, num_steps, size)
    finite = torch.stack(
        [leaf.flatten(1).isfinite().all(1) for leaf in tree.leaves(runs.params)]
    ).all(0)
    table = pd.DataFrame(
        {
            "model": models,
            "split": split_of(models, recipe.num_models),
            "success": runs.heldout[recipe.success].double().numpy(),
            "test_loss": runs.heldout["test_loss"].double().numpy(),
            "train_loss": runs.final_loss.numpy(),
            "finite": finite.numpy(),
            "learning_rate": log_lrs.double().exp().numpy(),
            "batch_size": batch_size,
            "num_steps": num_steps,
        }
    )
    return table, runs.params


def _choose(values: Sequence[int], source: torch.Generator) -> int:
    return values[int(torch.randint(len(values), (), generator=source))]
