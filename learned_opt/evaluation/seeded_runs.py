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
TEST_LOSS = "test_loss"  # figure on held-out data


@dataclass(frozen=True)
class Runs:
    """Inner training runs of one optimizer.

    Args:
        losses: training loss at every inner step, ``(T, M)``, float64; infinite from the first
            step that is not finite.
        heldout: figures on held-out data at the end, ``(M,)`` each.
        params: the trained networks, leaves ``(M, *shape)``.
        test_losses: test loss after every so many inner steps, ``(P, M)``; None where that was not
            measured.
        snapshots: params after every so many inner steps, leaves ``(M, P, *shape)``; None where
            none were kept.
    """

    losses: Tensor
    heldout: dict[str, Tensor]
    params: Tree
    test_losses: Tensor | None = None
    snapshots: Tree | None = None

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
    heldout_every: int | None = None,
    snapshot_every: int | None = None,
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
        heldout_every: inner steps between two measurements of the test loss, a divisor of
            ``SEGMENT``; None to measure at the end alone.
        snapshot_every: inner steps between two snapshots of the params, a divisor of ``SEGMENT``;
            None to keep those at the end alone.
    """
    losses: list[Tensor] = []
    test_losses: list[Tensor] = []
    heldout: list[Tree] = []
    params: list[Tree] = []
    snapshots: list[Tree] = []
    for start in range(0, len(seeds), num_chains):
        index = [min(start + i, len(seeds) - 1) for i in range(num_chains)]
        keys = [(split, seeds[i]) for i in index]
        block_theta = tree.tree_map(lambda leaf, index=index: leaf[index], theta)

        num_new = min(num_chains, len(seeds) - start)  # the others fill up the block
        block = _Block(unroll, block_theta, keys, heldout_every, snapshot_every)
        chains = block.run(horizon, num_new, progress)
        losses.append(torch.cat(block.losses))
        if block.test_losses:
            test_losses.append(torch.stack(block.test_losses))
        heldout.append(unroll.evaluate(chains))
        params.append(chains["params"])
        if block.snapshots:
            snapshots.append(tree.tree_map(_by_run, *block.snapshots))

    all_losses = torch.cat(losses, 1)[:, : len(seeds)].double().cpu()  # (T, M)
    # from the first step that is not finite on, even if later ones are
    finite = all_losses.isfinite().int().cummin(0).values.bool()

    return Runs(
        losses=all_losses.where(finite, math.inf),
        heldout=_join(heldout, len(seeds)),
        params=_join(params, len(seeds)),
        test_losses=torch.cat(test_losses, 1)[:, : len(seeds)].cpu() if test_losses else None,
        snapshots=_join(snapshots, len(seeds)) if snapshots else None,
    )


class _Block:
    """Runs that go side by side.

    Args:
        unroll: the inner loop.
        theta: leaves ``(M, *shape)``.
        keys: of the draws of each.
        heldout_every: as of ``run_seeds``.
        snapshot_every: as of ``run_seeds``.

    Attributes:
        losses: of segments, ``(K, M)`` each.
        test_losses: at the measured steps, ``(M,)`` each, float64.
        snapshots: params at the steps that were asked for, leaves ``(M, *shape)``.
    """

    def __init__(
        self,
        unroll: Unroll,
        theta: Tree,
        keys: Sequence[tuple[Key, ...]],
        heldout_every: int | None,
        snapshot_every: int | None,
    ) -> None:
        self.unroll = unroll
        self.theta = theta
        self.keys = keys
        self.heldout_every = heldout_every
        self.snapshot_every = snapshot_every
        self.losses: list[Tensor] = []
        self.test_losses: list[Tensor] = []
        self.snapshots: list[Tree] = []

    def run(self, horizon: int, num_new: int, progress: Progress) -> Tree:
        """Train; returns the chains at the end."""
        chains = self.unroll.start(self.keys, [horizon] * len(self.keys))
        for start in range(0, horizon, SEGMENT):
            num_steps = min(SEGMENT, horizon - start)
            keys = [(*key, start) for key in self.keys]
            batches = self.unroll.batches(keys, chains, num_steps)
            chains = self._segment(chains, batches, num_steps)
            progress.advance(num_new * num_steps / horizon)
        return chains

    def _segment(self, chains: Tree, batches: Tree, num_steps: int) -> Tree:
        every = self.heldout_every or self.snapshot_every or num_steps
        for first in range(0, num_steps, every):
            part = tree.tree_map(lambda leaf, k=first: leaf[k : k + every], batches)
            losses, chains = self.unroll.run(self.theta, chains, part)
            self.losses.append(losses)
            if self.heldout_every and len(losses) == every:
                self.test_losses.append(self._test_loss(chains).double())
            if self.snapshot_every and len(losses) == every:
                self.snapshots.append(tree.to(chains["params"], "cpu"))
        return chains

    def _test_loss(self, chains: Tree) -> Tensor:
        figures = self.unroll.evaluate(chains)
        if TEST_LOSS not in figures:
            raise ValueError(
                f"heldout_every needs a task that measures {TEST_LOSS}; this one measures "
                f"{', '.join(figures) or 'nothing'}."
            )
        return figures[TEST_LOSS]


def _by_run(*leaves: Tensor) -> Tensor:
    """Snapshots ``(M, *shape)`` side by side: ``(M, P, *shape)``."""
    return torch.stack(leaves, 1)


def _join(blocks: Sequence[Tree], num_runs: int) -> Tree:
    """Blocks one after another, without the runs that fill up the last one, on the CPU."""
    first, *others = blocks
    return tree.tree_map(lambda *leaves: torch.cat(leaves)[:num_runs].cpu(), first, *others)
