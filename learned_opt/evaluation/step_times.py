"""How long an inner step takes, of several optimizers in turn.

Legend: M chains.
"""

import time
from collections.abc import Mapping

import torch

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.inner.unroll import Unroll


@torch.no_grad()
def time_steps(
    unrolls: Mapping[str, tuple[Unroll, Tree]],
    num_chains: int,
    num_steps: int = 20,
    repeats: int = 5,
) -> dict[str, float]:
    """Milliseconds per inner step of one chain, ``num_chains`` side by side.

    Args:
        unrolls: name -> (inner loop, theta without a leading axis).
        num_chains: chains M.
        num_steps: inner steps per repeat.
        repeats: how often each is timed, in turn.

    Returns:
        dict[str, float]: name -> median over the repeats.
    """
    times: dict[str, list[float]] = {name: [] for name in unrolls}
    for _ in range(repeats + 1):
        for name, (unroll, theta) in unrolls.items():
            seconds = _time_unroll(unroll, theta, num_chains, num_steps)
            times[name].append(seconds * 1e3 / (num_steps * num_chains))

    # the first round compiles and warms up
    return {name: sorted(values[1:])[repeats // 2] for name, values in times.items()}


def _time_unroll(unroll: Unroll, theta: Tree, num_chains: int, num_steps: int) -> float:
    """Seconds that all chains take together, without drawing their starts and batches."""
    keys = [("timing", i) for i in range(num_chains)]
    chains = unroll.start(keys)
    batches = unroll.batches(keys, chains, num_steps)
    many = tree.contiguous(tree.expand(theta, num_chains))  # leaves (M, *shape)

    start = time.perf_counter()
    losses, _ = unroll.run(many, chains, batches)
    losses.sum().item()  # waits for the device
    return time.perf_counter() - start
