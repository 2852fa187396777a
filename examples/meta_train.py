"""Meta-train a learned optimizer from Python, compare it with tuned baselines, keep it, use it.

    python -m examples.meta_train

Nothing but ``save`` writes a file. It takes minutes on two cores.
"""

from functools import partial

import learned_opt  # before torch: its threads then share the cores with other programs

# isort: split
import torch
from torch import nn

from learned_opt.estimators.pes import PES
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.unf.layers import Pointwise
from tasks.data.embedded import digits
from tasks.networks.mlp import MLP
from tasks.supervised import Classification


def main(
    steps: int = 100,
    horizon: int = 100,
    seeds: int = 16,
    num_lrs: int = 26,
    compile: bool = True,
    folder: str = "runs/example",
) -> None:
    """All of it.

    Args:
        steps: outer steps.
        horizon: inner steps of an inner training.
        seeds: held-out seeds of the comparison.
        num_lrs: tries of each baseline.
        compile: compile the inner steps.
        folder: where theta is kept.
    """
    task = Classification("digits", partial(MLP, hidden_sizes=[32]), digits(test_fraction=0.2))
    optimizer = partial(UNFOptimizer, head=Pointwise, alpha=1.0, beta=0.03, normalisation="channel")
    estimator = partial(PES, num_tasks=8, unroll_length=horizon // 4, sigma=0.03)

    result = learned_opt.meta_train(
        task, optimizer, estimator, steps, horizon=horizon, compile=compile
    )
    print(result)
    comparison = learned_opt.compare(
        {"learned": result}, task, horizon, seeds=seeds, num_lrs=num_lrs, compile=compile
    )
    print(comparison)

    model = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 10))
    inputs = (torch.zeros(1, 64),)
    saved = result.save(folder)
    print(learned_opt.LearnedOptimizer.from_pretrained(saved, model, inputs))


if __name__ == "__main__":
    main()
