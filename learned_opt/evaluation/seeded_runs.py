"""Inner training runs on given seeds, for evaluation: same loop, same seeds for every optimizer.

Legend: M runs, T inner steps (horizon).
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.rng import Key
from learned_opt.core.tree import Tree
from learned_opt.inner.unroll import Unroll

FINAL_WINDOW = 10  # inner steps whose mean training loss counts as the final loss
SEGMENT = 50  # inner steps whose batches are drawn at once
# purposes of the keys that draws are made from, beside "tune"; those of different purposes share no randomness
VALID, HELDOUT = "valid", "heldout"


@dataclass(frozen=True)
class Runs:
    """Inner training runs of one optimizer.

    Args:
        losses: training loss at every step, ``(T, M)``, float64; infinite from the first step that is not finite.
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
        return self.losses.unfold(0, min(FINAL_WINDOW, len(self.losses)), 1).mean(-1)

    @property
    def final_loss(self) -> Tensor:
        """Mean training loss over the last steps, ``(M,)``."""
        return self.trailing_loss[-1]

    @property
    def min_loss(self) -> Tensor:
        """Lowest trailing mean, ``(M,)``."""
        return self.trailing_loss.amin(0)

    def steps_to(self, target: float | Tensor) -> list[int | None]:
        """First step at which the trailing mean is at most ``target``, a number or ``(M,)``; None where never."""
        hits = self.trailing_loss <= target
        first = hits.int().argmax(0) + min(FINAL_WINDOW, len(self.losses))
        return [int(step) if hit else None for step, hit in zip(first, hits.any(0), strict=True)]


@torch.no_grad()
def run_seeds(
    unroll: Unroll, theta: Tree, split: str, seeds: Sequence[int], horizon: int, num_chains: int
) -> Runs:
    """Train one network per seed.

    Args:
        unroll: the inner loop.
        theta: leaves ``(M, *shape)``, one theta per run.
        split: ``valid``, ``tune`` or ``heldout``; different splits share no randomness.
        seeds: M seeds; equal (split, seed) means equal task, initial parameters and batches for every optimizer.
        horizon: inner steps T.
        num_chains: runs that go side by side; the last block is filled up, so that one compilation serves all.
    """
    blocks = []
    for start in range(0, len(seeds), num_chains):
        index = [min(start + i, len(seeds) - 1) for i in range(num_chains)]
        block_theta = tree.tree_map(lambda leaf, index=index: leaf[index], theta)
        blocks.append(_run_block(unroll, block_theta, [(split, seeds[i]) for i in index], horizon))
    losses = torch.cat([losses for losses, _, _ in blocks], 1)[:, : len(seeds)].double().cpu()
    heldout, params = (_join([block[i] for block in blocks], len(seeds)) for i in (1, 2))
    finite = losses.isfinite().int().cummin(0).values.bool()
    return Runs(losses.where(finite, math.inf), heldout, params)


def _join(blocks: list[Tree], num_runs: int) -> Tree:
    return tree.tree_map(lambda *leaves: torch.cat(leaves)[:num_runs].cpu(), blocks[0], *blocks[1:])


def _run_block(
    unroll: Unroll, theta: Tree, keys: list[tuple[Key, ...]], horizon: int
) -> tuple[Tensor, Tree, Tree]:
    chains, losses = unroll.start(keys), []
    for start in range(0, horizon, SEGMENT):
        steps = min(SEGMENT, horizon - start)
        batches = unroll.batches([(*key, start) for key in keys], chains, steps)
        segment, chains = unroll.run(theta, chains, batches)
        losses.append(segment)
    return torch.cat(losses), unroll.evaluate(chains), chains["params"]


@torch.no_grad()
def time_steps(
    unrolls: dict[str, tuple[Unroll, Tree]], num_chains: int, num_steps: int = 20, repeats: int = 5
) -> dict:
    """Milliseconds per inner step of one chain, ``num_chains`` side by side; median over interleaved repeats.

    Args:
        unrolls: name -> (inner loop, theta without a leading axis).
        num_chains: chains M.
        num_steps: inner steps per repeat.
        repeats: how often each is timed, in turn.
    """
    keys = [("timing", i) for i in range(num_chains)]
    times: dict[str, list[float]] = {name: [] for name in unrolls}
    for _ in range(repeats + 1):  # the first round compiles and warms up
        for name, (unroll, theta) in unrolls.items():
            chains = unroll.start(keys)
            batches = unroll.batches(keys, chains, num_steps)
            many = tree.contiguous(tree.expand(theta, num_chains))
            start = time.perf_counter()
            losses, _ = unroll.run(many, chains, batches)
            losses.sum().item()  # waits for the device
            times[name].append((time.perf_counter() - start) * 1e3 / (num_steps * num_chains))
    return {name: sorted(values[1:])[repeats // 2] for name, values in times.items()}
