"""Inner training runs on stated seeds, for evaluation: one loop and one set of seeds for all.

Legend: M runs, T inner steps (horizon).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.rng import Key
from learned_opt.core.tree import Tree
from learned_opt.evaluation.progress import SILENT, Progress
from learned_opt.inner.unroll import Unroll

FINAL_WINDOW = 10  # inner steps whose mean training loss counts as the final loss
SEGMENT = 50  # inner steps whose batches are drawn at once

# Purposes of the keys that draws are made from, beside "tune"; those of different purposes share
# no randomness.
VALID = "valid"
HELDOUT = "heldout"


@dataclass(frozen=True)
class Runs:
    """Inner training runs of one optimizer.

    Args:
        losses: training loss at every inner step, ``(T, M)``, float64; infinite from the first
            step that is not finite.
        heldout: figures on held-out data at the end, ``(M,)`` each.
        params: the trained networks, leaves ``(M, *shape)``.
    """

    losses: Tensor
    heldout: dict[str, Tensor]
    params: Tree

    @property
    def mean_loss(self) -> Tensor:
        """Mean training loss over the horizon, ``(M,)``: the meta-loss."""
        return self.losses.mean(0)

    @property
    def trailing_loss(self) -> Tensor:
        """Training loss, trailing mean over the window, ``(T - window + 1, M)``."""
        return self.losses.unfold(0, self._window, 1).mean(-1)

    @property
    def final_loss(self) -> Tensor:
        """Mean training loss over the last steps, ``(M,)``."""
        return self.trailing_loss[-1]

    @property
    def min_loss(self) -> Tensor:
        """Lowest trailing mean of every run, ``(M,)``."""
        return self.trailing_loss.amin(0)

    def steps_to(self, target: float | Tensor) -> list[int | None]:
        """First step at which the trailing mean is at most a target; None where never.

        Args:
            target: a number, or one for each run, ``(M,)``.
        """
        hits = self.trailing_loss <= target  # (T - window + 1, M)
        reached = hits.any(0).tolist()
        first = (hits.int().argmax(0) + self._window).tolist()
        return [step if hit else None for step, hit in zip(first, reached, strict=True)]

    @property
    def _window(self) -> int:
        return min(FINAL_WINDOW, len(self.losses))


@torch.no_grad()
def run_seeds(
    unroll: Unroll,
    theta: Tree,
    split: str,
    seeds: Sequence[int],
    horizon: int,
    num_chains: int,
    progress: Progress = SILENT,
) -> Runs:
    """Train one network per seed.

    Args:
        unroll: the inner loop.
        theta: leaves ``(M, *shape)``, one theta per run.
        split: ``valid``, ``tune`` or ``heldout``; different splits share no randomness.
        seeds: M seeds; equal (split, seed) means equal task, initial parameters and batches for
            every optimizer.
        horizon: inner steps T.
        num_chains: runs that go side by side; the last block is filled up, so that one compilation
            serves all.
        progress: told of the runs as they go on.
    """
    losses: list[Tensor] = []
    heldout: list[Tree] = []
    params: list[Tree] = []
    for start in range(0, len(seeds), num_chains):
        index = [min(start + i, len(seeds) - 1) for i in range(num_chains)]
        keys = [(split, seeds[i]) for i in index]
        block_theta = tree.tree_map(lambda leaf, index=index: leaf[index], theta)

        num_new = min(num_chains, len(seeds) - start)  # the others fill up the block
        block_losses, chains = _run_block(unroll, block_theta, keys, horizon, num_new, progress)
        losses.append(block_losses)
        heldout.append(unroll.evaluate(chains))
        params.append(chains["params"])

    all_losses = torch.cat(losses, 1)[:, : len(seeds)].double().cpu()  # (T, M)
    # from the first step that is not finite on, even if later ones are
    finite = all_losses.isfinite().int().cummin(0).values.bool()

    return Runs(
        losses=all_losses.where(finite, math.inf),
        heldout=_join(heldout, len(seeds)),
        params=_join(params, len(seeds)),
    )


def _run_block(
    unroll: Unroll,
    theta: Tree,
    keys: Sequence[tuple[Key, ...]],
    horizon: int,
    num_new: int,
    progress: Progress,
) -> tuple[Tensor, Tree]:
    """Losses ``(T, M)`` of the runs of one block, and their chains at the end."""
    chains = unroll.start(keys)
    losses = []
    for start in range(0, horizon, SEGMENT):
        num_steps = min(SEGMENT, horizon - start)
        batches = unroll.batches([(*key, start) for key in keys], chains, num_steps)
        segment, chains = unroll.run(theta, chains, batches)
        losses.append(segment)
        progress.advance(num_new * num_steps / horizon)

    return torch.cat(losses), chains


def _join(blocks: Sequence[Tree], num_runs: int) -> Tree:
    """Blocks one after another, without the runs that fill up the last one, on the CPU."""
    first, *others = blocks
    return tree.tree_map(lambda *leaves: torch.cat(leaves)[:num_runs].cpu(), first, *others)
