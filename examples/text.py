"""A small transformer on text, trained as Hugging Face's trainers do it.

    python -m examples.text [WEIGHTS] [--steps 200]

Accumulation, clipping, warm-up and a checkpoint halfway. It prints the last training loss of the
learned optimizer and of AdamW.

Legend: B batch, L length.
"""

import tempfile
from collections.abc import Callable
from pathlib import Path
from pydoc_data import topics

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from examples import options
from learned_opt import LearnedOptimizer

LENGTH = 32  # bytes of a sequence
BATCH = 16  # sequences
ACCUMULATE = 2  # batches of a step
WARM_UP = 10  # steps
VOCABULARY = 128


class LanguageModel(nn.Module):
    """Two blocks of causal attention on bytes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed = nn.Embedding(VOCABULARY, width)
        self.position = nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(
            width, 2, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, L) -> (B, L, vocabulary)``."""
        length = tokens.shape[1]
        stream = self.embed(tokens) + self.position.weight[:length]
        mask = nn.Transformer.generate_square_subsequent_mask(length)
        return self.head(self.blocks(stream, mask=mask, is_causal=True))


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Next-byte loss of sequences ``(B, L + 1)``."""
    scores = model(tokens[:, :-1])
    return cross_entropy(scores.flatten(0, 1), tokens[:, 1:].flatten())


def sequences(text: Tensor, source: torch.Generator) -> Tensor:
    """A batch of sequences ``(BATCH, LENGTH + 1)``."""
    starts = torch.randint(len(text) - LENGTH, (BATCH,), generator=source)
    return torch.stack([text[start : start + LENGTH + 1] for start in starts])


def train(
    make_optimizer: Callable[[nn.Module], torch.optim.Optimizer],
    steps: int,
    text: Tensor,
    folder: Path,
) -> float:
    """The loss at the end; the second half goes on from a checkpoint."""
    torch.manual_seed(0)
    model = LanguageModel()
    source = torch.Generator().manual_seed(0)
    optimizer = make_optimizer(model)
    scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))

    loss = 0.0
    for step in range(steps):
        if step == steps // 2:
            checkpoint = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            torch.save(checkpoint, folder / "checkpoint.pt")
            saved = torch.load(folder / "checkpoint.pt")
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])

        loss = 0.0
        for _ in range(ACCUMULATE):
            part = loss_of(model, sequences(text, source)) / ACCUMULATE
            part.backward()
            loss += part.item()

        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step(lambda loss=loss: loss)
        scheduler.step()
        optimizer.zero_grad()
    return loss


def main(words: list[str] | None = None) -> None:
    """Train with the learned optimizer and with AdamW."""
    arguments = options.parse(words, "A small transformer on Python's help topics", steps=200)
    characters = "\n".join(topics.topics.values()).encode("ascii", "replace")
    text = torch.tensor(list(characters))
    example_inputs = (torch.zeros(1, LENGTH, dtype=torch.int64),)

    def learned(model: nn.Module) -> torch.optim.Optimizer:
        return LearnedOptimizer.from_pretrained(arguments.weights, model, example_inputs)

    def adamw(model: nn.Module) -> torch.optim.Optimizer:
        return torch.optim.AdamW(model.parameters(), lr=1e-3)

    for name, make_optimizer in {"learned": learned, "AdamW 1e-3": adamw}.items():
        with tempfile.TemporaryDirectory() as folder:
            loss = train(make_optimizer, arguments.steps, text, Path(folder))
        print(f"{name:<11} loss {loss:.4f} after {arguments.steps} steps")


if __name__ == "__main__":
    main()
