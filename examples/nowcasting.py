"""Predicted weights around AdamW at five learning rates, with straight lines as the control.

    python -m examples.nowcasting [WEIGHTS...] [--task mlp|cnn] [--steps 10000] [--seeds 3]

WEIGHTS are safetensors files of nowcasting networks. It prints, for each learning rate, the mean
loss over the last steps with AdamW alone, with lines, and with each network, averaged over seeds.
"""

import argparse
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from learned_opt import Nowcaster

RATES = (3e-4, 1e-3, 3e-3, 6e-3, 2e-2)
BATCH = 128
PREDICTIONS = 10
LAST = 20  # steps whose mean loss counts
ALONE = "AdamW"


def make_model(task: str, seed: int) -> nn.Module:
    """An MLP of 32 units, or a CNN of three layers, for digits of 8x8 pixels."""
    torch.manual_seed(seed)
    if task == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, stride=2),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    )


def data() -> tuple[Tensor, Tensor]:
    """Images ``(1797, 1, 8, 8)`` in [0, 1] and their classes ``(1797,)``."""
    pixels, classes = load_digits(return_X_y=True)
    images = torch.tensor(pixels / 16, dtype=torch.float32)
    return images.reshape(-1, 1, 8, 8), torch.tensor(classes)


def final_loss(task: str, weights: str, rate: float, seed: int, steps: int) -> float:
    """Train once; the mean training loss over the last steps.

    Args:
        task: see ``make_model``.
        weights: of the nowcasting network, ``linear``, or ``AdamW`` for none.
        rate: learning rate.
        seed: of initial weights and batches.
        steps: of the whole training.
    """
    images, classes = data()
    model = make_model(task, seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    if weights != ALONE:
        period = max(5, steps // PREDICTIONS // 5 * 5)
        optimizer = Nowcaster(optimizer, model, weights, period, steps, (images[:2],))

    batches = torch.Generator().manual_seed(seed)
    losses = []
    for _ in range(steps):
        batch = torch.randint(len(images), (BATCH,), generator=batches)
        loss = cross_entropy(model(images[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    last = losses[-LAST:]
    return sum(last) / len(last)


def main(words: list[str] | None = None) -> None:
    """Train with each learning rate and each way to predict, and print a table."""
    parser = argparse.ArgumentParser(description="Nowcasting around AdamW on digits")
    parser.add_argument("weights", nargs="*", help="safetensors files of networks")
    parser.add_argument("--task", choices=("mlp", "cnn"), default="mlp")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args(words)

    ways = [ALONE, "linear", *arguments.weights]
    print("rate    " + "".join(f"{Path(way).stem:>15}" for way in ways))
    for rate in RATES:
        shown = f"{rate:<8.0e}"
        for way in ways:
            runs = []
            for seed in range(arguments.seeds):
                runs.append(final_loss(arguments.task, way, rate, seed, arguments.steps))
            shown += f"{sum(runs) / len(runs):>15.4f}"
        print(shown, flush=True)


if __name__ == "__main__":
    main()
