"""A plain PyTorch loop: an MLP on digits, with a learned optimizer and with AdamW.

    python -m examples.digits [WEIGHTS] [--steps 200]

It prints the training losses of all optimizers side by side.
"""

from collections.abc import Callable

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from examples import options
from learned_opt import LearnedOptimizer

BATCH = 128


def data() -> tuple[Tensor, Tensor]:
    """Images ``(1797, 64)`` in [0, 1] and their classes ``(1797,)``."""
    pixels, classes = load_digits(return_X_y=True)
    return torch.tensor(pixels / 16, dtype=torch.float32), torch.tensor(classes)


def make_model() -> nn.Module:
    """An MLP that has the same initial weights each time."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10)
    )


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> list[float]:
    """Train a model and return the loss of every step."""
    images, classes = data()
    batches = torch.Generator().manual_seed(0)

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
    """Train with each optimizer and print the losses side by side."""
    arguments = options.parse(words, "An MLP on digits", steps=200)
    example_inputs = (data()[0][:2],)

    def learned(model: nn.Module) -> torch.optim.Optimizer:
        return LearnedOptimizer.from_pretrained(arguments.weights, model, example_inputs)

    constructors: dict[str, Callable[[nn.Module], torch.optim.Optimizer]] = {
        "learned": learned,
        "AdamW 1e-3": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3),
        "AdamW 1e-2": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2),
    }
    curves = {}
    for name, make_optimizer in constructors.items():
        model = make_model()
        curves[name] = train(model, make_optimizer(model), arguments.steps)

    print("step   " + "".join(f"{name:>12}" for name in curves))
    shown = {arguments.steps * part // 8 for part in range(8)} | {arguments.steps - 1}
    for step in sorted(shown):
        print(f"{step:<7}" + "".join(f"{losses[step]:12.4f}" for losses in curves.values()))


if __name__ == "__main__":
    main()
