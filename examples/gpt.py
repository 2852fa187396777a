"""A GPT of 0.8M weights on characters: packaged optimizers beside AdamW and Muon, both tuned.

    python -m examples.gpt [--text FILE] [--steps 800] [--out runs/gpt]

AdamW and Muon warm up and fall along a cosine, each at every rate of ``RATES``; the best final
training loss counts. It prints a table and draws ``gpt.png``: training loss against steps and
against seconds of one core. Every training leaves a file in the folder, so that the program goes on
where it was stopped.

Legend: B batch, L length, D width.
"""

import argparse
import json
import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from pydoc_data import topics
from typing import NamedTuple

import matplotlib

matplotlib.use("agg")
import matplotlib.pyplot as plt
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from learned_opt import LearnedOptimizer

LENGTH = 64  # characters of a sequence
BATCH = 24  # sequences
WIDTH = 128
BLOCKS = 4
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
OF_VECTORS = 3e-3  # rate of AdamW for what Muon does not take
PACKAGED = ("unf-transfer", "unf-adaptive")
WARM_UP = 0.05  # share of the steps
LAST = 0.05  # share of the steps whose mean loss counts


class GPT(nn.Module):
    """Blocks of causal attention on characters.

    Args:
        num_characters: size of the alphabet.
    """

    def __init__(self, num_characters: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(num_characters, WIDTH)
        self.position = nn.Embedding(LENGTH, WIDTH)
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, BLOCKS, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, num_characters)

    def forward(self, characters: Tensor) -> Tensor:
        """``(B, L) -> (B, L, alphabet)``."""
        length = characters.shape[1]
        stream = self.embed(characters) + self.position.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.norm(self.blocks(stream, mask=mask, is_causal=True)))


class Curve(NamedTuple):
    """One training.

    Args:
        losses: of every step, before it.
        seconds: of one core since the start, after every step.
    """

    losses: list[float]
    seconds: list[float]

    @property
    def final(self) -> float:
        """Mean loss over the last steps."""
        last = self.losses[-max(1, int(LAST * len(self.losses))) :]
        return sum(last) / len(last)


Parts = list[tuple[torch.optim.Optimizer, bool]]  # optimizers of a model; whether rates fall


def learned(name: str, steps: int, model: nn.Module) -> Parts:
    """A packaged optimizer as it is; where it knows the length of the training it falls itself."""
    length = {"num_steps": steps} if name == "unf-adaptive" else {}
    return [(LearnedOptimizer.from_pretrained(name, model, **length), False)]


def adamw(rate: float, model: nn.Module) -> Parts:
    """AdamW for all weights."""
    return [(torch.optim.AdamW(model.parameters(), lr=rate), True)]


def muon(rate: float, model: nn.Module) -> Parts:
    """Muon for the matrices inside, AdamW for vectors, embeddings and the read-out."""
    matrices = []
    others = []
    for name, param in model.named_parameters():
        is_inside = param.ndim == 2 and name.startswith("blocks")
        (matrices if is_inside else others).append(param)

    of_matrices = torch.optim.Muon(matrices, lr=rate, adjust_lr_fn="match_rms_adamw")
    return [(of_matrices, True), (torch.optim.AdamW(others, lr=OF_VECTORS), True)]


def train(make: Callable[[nn.Module], Parts], text: Tensor, steps: int, seed: int = 0) -> Curve:
    """Train once, in one thread.

    Args:
        make: makes the optimizers of a model.
        text: characters as numbers, ``(N,)``.
        steps: of the training.
        seed: of weights and batches.
    """
    torch.manual_seed(seed)
    model = GPT(int(text.max()) + 1)
    source = torch.Generator().manual_seed(seed)
    parts = make(model)
    warm_up = max(1, int(WARM_UP * steps))
    share = partial(_share_of_rate, warm_up=warm_up, steps=steps)
    schedules = [LambdaLR(optimizer, share) for optimizer, falls in parts if falls]

    curve = Curve([], [])
    begin = time.process_time()
    for _ in range(steps):
        starts = torch.randint(len(text) - LENGTH, (BATCH,), generator=source)
        sequences = torch.stack([text[start : start + LENGTH + 1] for start in starts])
        scores = model(sequences[:, :-1])
        loss = cross_entropy(scores.flatten(0, 1), sequences[:, 1:].flatten())

        model.zero_grad()
        loss.backward()
        for optimizer, _ in parts:
            optimizer.step()
        for schedule in schedules:
            schedule.step()

        curve.losses.append(loss.item())
        curve.seconds.append(time.process_time() - begin)
    return curve


def _share_of_rate(step: int, warm_up: int, steps: int) -> float:
    if step < warm_up:
        return (step + 1) / warm_up
    return 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (steps - warm_up)))


def all_curves(text: Tensor, steps: int, folder: Path) -> dict[str, Curve]:
    """Every training by its name; those whose files are there are read."""
    makers: dict[str, Callable[[nn.Module], Parts]] = {}
    for name in PACKAGED:
        makers[name] = partial(learned, name, steps)
    for rate in RATES:
        makers[f"AdamW {rate:g}"] = partial(adamw, rate)
        makers[f"Muon {rate:g}"] = partial(muon, rate)

    curves = {}
    for name, make in makers.items():
        path = folder / f"{name.replace(' ', '_')}_{steps}.json"
        if not path.is_file():
            curve = train(make, text, steps)
            path.write_text(json.dumps(curve._asdict()))
        curves[name] = Curve(**json.loads(path.read_text()))
        print(f"{name:<14} loss {curves[name].final:.3f}   {curves[name].seconds[-1]:.0f} s")
    return curves


def best(curves: dict[str, Curve], kind: str) -> str:
    """The name of the best training of a kind of optimizer."""
    names = [name for name in curves if name.startswith(kind)]
    return min(names, key=lambda name: curves[name].final)


def draw(curves: dict[str, Curve], path: Path) -> None:
    """Trailing mean loss against steps and against seconds."""
    figure, panels = plt.subplots(1, 2, figsize=(10, 4), sharey=True, layout="constrained")
    for name, curve in curves.items():
        window = max(1, len(curve.losses) // 40)
        sums = torch.tensor([0.0, *curve.losses], dtype=torch.float64).cumsum(0)
        means = ((sums[window:] - sums[:-window]) / window).tolist()
        steps = range(window, len(curve.losses) + 1)
        panels[0].plot(steps, means, label=f"{name}: {curve.final:.3f}")
        panels[1].plot(curve.seconds[window - 1 :], means, label=name)

    panels[0].set(xlabel="step", ylabel="training loss (nats a character, trailing mean)")
    panels[1].set(xlabel="seconds of one core")
    panels[0].set_ylim(top=3.0)
    panels[0].legend(frameon=False, title="final loss")
    for panel in panels:
        panel.grid(alpha=0.3)
    figure.savefig(path, dpi=120)


def main(words: list[str] | None = None) -> None:
    """Train with all of them, print a table and draw the best."""
    parser = argparse.ArgumentParser(description="A GPT on characters")
    parser.add_argument("--text", type=Path, help="a file; Python's help topics without")
    parser.add_argument("--steps", type=int, default=800, help="training steps")
    parser.add_argument("--out", type=Path, default=Path("runs/gpt"), help="folder of the results")
    arguments = parser.parse_args(words)

    topic_text = "\n".join(topics.topics.values())
    text = arguments.text.read_text() if arguments.text else topic_text
    alphabet = {character: number for number, character in enumerate(sorted(set(text)))}
    characters = torch.tensor([alphabet[character] for character in text])

    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    curves = all_curves(characters, arguments.steps, arguments.out)
    shown = [*PACKAGED, best(curves, "AdamW"), best(curves, "Muon")]
    draw({name: curves[name] for name in shown}, arguments.out / "gpt.png")
    print(f"drawn: {arguments.out / 'gpt.png'}")


if __name__ == "__main__":
    main()
