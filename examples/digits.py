"""A plain PyTorch loop: an MLP on the digits of scikit-learn, with a learned optimizer and with AdamW."""

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.nn.functional import cross_entropy

from examples import options
from learned_opt import LearnedOptimizer

BATCH = 128


def data() -> tuple[torch.Tensor, torch.Tensor]:
    """Images ``(1797, 64)`` in [0, 1] and their classes."""
    pixels, classes = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(classes)


def make_model() -> nn.Module:
    """The same initial weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10)
    )


def train(make_optimizer: Callable[[nn.Module], torch.optim.Optimizer], steps: int) -> list[float]:
    """Training losses."""
    images, classes = data()
    model, batches = make_model(), torch.Generator().manual_seed(0)
    optimizer = make_optimizer(model)
    losses = []
    for _ in range(steps):
        batch = torch.randint(len(images), (BATCH,), generator=batches)
        loss = cross_entropy(model(images[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(lambda loss=loss: loss)  # some learned optimizers read the loss
        losses.append(loss.item())
    return losses


def main(words: list[str] | None = None) -> None:
    """Train twice and print the losses side by side."""
    given = options.parse(words, "An MLP on digits", steps=200)
    example_inputs = (data()[0][:2],)
    curves = {
        "learned": train(
            lambda model: LearnedOptimizer.from_pretrained(given.weights, model, example_inputs),
            given.steps,
        ),
        "AdamW 1e-3": train(
            lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3), given.steps
        ),
        "AdamW 1e-2": train(
            lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2), given.steps
        ),
    }
    print("step   " + "".join(f"{name:>12}" for name in curves))
    for step in sorted({given.steps * part // 8 for part in range(8)} | {given.steps - 1}):
        print(f"{step:<7}" + "".join(f"{losses[step]:12.4f}" for losses in curves.values()))


if __name__ == "__main__":
    main()
