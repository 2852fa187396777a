"""A trained MLP becomes one of quadratic neurons, which starts as the same function.

    python -m examples.quadratize --steps 200 --more 200

It trains an MLP on digits, makes its quadratic counterpart, trains both on with the same batches
and prints the training losses of both, step by step side by side. The first losses are equal. A
lower loss after that says nothing of unseen digits: the quadratic network has three times the
weights.

Source: the neuron of Xu et al. 2020 (arXiv 2011.10813); the start as the same function, and the
smaller learning rate for what is new, are those of ReLinear (Fan et al.).
"""

import argparse
import copy

import torch
from torch import nn

from examples.digits import make_model, train
from tasks.networks.quadratize import quadratize

RATE = 1e-3
NEW_RATE = 1e-4  # of the branches that the trained network did not have


def adam_of(model: nn.Module) -> torch.optim.Optimizer:
    """Adam, with a smaller rate for the branches b and c of quadratic neurons."""
    old = []
    new = []
    for name, parameter in model.named_parameters():
        is_new = name.endswith(("_b", "_c"))
        (new if is_new else old).append(parameter)

    groups = [{"params": old, "lr": RATE}]
    if new:
        groups.append({"params": new, "lr": NEW_RATE})
    return torch.optim.Adam(groups)


def main(words: list[str] | None = None) -> None:
    """Train, convert, train on, and print losses."""
    parser = argparse.ArgumentParser(description="From an MLP to its quadratic counterpart")
    parser.add_argument("--steps", type=int, default=200, help="steps before the conversion")
    parser.add_argument("--more", type=int, default=200, help="steps after it")
    arguments = parser.parse_args(words)

    plain = make_model()
    before = train(plain, adam_of(plain), arguments.steps)
    print(f"loss {before[0]:.4f} at first, {before[-1]:.4f} after {arguments.steps} steps")

    # the last layer stays linear, as is usual for the scores of classes
    quadratic = quadratize(copy.deepcopy(plain), keep=["4"])
    plain_losses = train(plain, adam_of(plain), arguments.more)
    quadratic_losses = train(quadratic, adam_of(quadratic), arguments.more)

    print(f"{'step':<7}{'plain':>12}{'quadratic':>12}")
    shown = {arguments.more * part // 8 for part in range(8)} | {arguments.more - 1}
    for step in sorted(shown):
        print(f"{step:<7}{plain_losses[step]:12.4f}{quadratic_losses[step]:12.4f}")


if __name__ == "__main__":
    main()
