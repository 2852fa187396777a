"""A small transformer on text, as Hugging Face's trainers do it: accumulation, clipping, warm-up, checkpoints."""

import tempfile
from pathlib import Path
from pydoc_data import topics

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim.lr_scheduler import LambdaLR

from examples import options
from learned_opt import LearnedOptimizer

LENGTH, BATCH, ACCUMULATE, WARM_UP, VOCABULARY = 32, 16, 2, 10, 128


class LanguageModel(nn.Module):
    """Two blocks of causal attention on bytes."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.embed, self.position = nn.Embedding(VOCABULARY, width), nn.Embedding(LENGTH, width)
        layer = nn.TransformerEncoderLayer(
            width, 2, 4 * width, dropout=0.0, batch_first=True, norm_first=True
        )
        self.blocks = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(width, VOCABULARY)

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, L) -> (B, L, vocabulary)``."""
        stream = self.embed(tokens) + self.position.weight[: tokens.shape[1]]
        mask = nn.Transformer.generate_square_subsequent_mask(tokens.shape[1])
        return self.head(self.blocks(stream, mask=mask, is_causal=True))


def loss_of(model: nn.Module, tokens: Tensor) -> Tensor:
    """Next-byte loss of sequences ``(B, L + 1)``."""
    return cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())


def train(weights: str, steps: int, text: Tensor, folder: Path) -> float:
    """The loss at the end; the second half goes on from a checkpoint."""
    torch.manual_seed(0)
    model, source = LanguageModel(), torch.Generator().manual_seed(0)
    optimizer = make_optimizer(weights, model)
    scheduler = LambdaLR(optimizer, lambda step: min(1.0, (step + 1) / WARM_UP))
    loss = 0.0
    for step in range(steps):
        if step == steps // 2:
            torch.save(
                {"model": model.state_dict(), "optimizer": optimizer.state_dict()},
                folder / "checkpoint.pt",
            )
            saved = torch.load(folder / "checkpoint.pt")
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
        loss = 0.0
        for _ in range(ACCUMULATE):
            starts = torch.randint(len(text) - LENGTH, (BATCH,), generator=source)
            part = (
                loss_of(model, torch.stack([text[start : start + LENGTH + 1] for start in starts]))
                / ACCUMULATE
            )
            part.backward()
            loss += part.item()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step(lambda loss=loss: loss)
        scheduler.step()
        optimizer.zero_grad()
    return loss


def make_optimizer(weights: str, model: nn.Module) -> torch.optim.Optimizer:
    """AdamW, or a learned optimizer."""
    if weights == "adamw":
        return torch.optim.AdamW(model.parameters(), lr=1e-3)
    return LearnedOptimizer.from_pretrained(
        weights, model, (torch.zeros(1, LENGTH, dtype=torch.int64),)
    )


def main(words: list[str] | None = None) -> None:
    """Train with the learned optimizer and with AdamW."""
    given = options.parse(words, "A small transformer on Python's help topics", steps=200)
    text = torch.tensor(list("\n".join(topics.topics.values()).encode("ascii", "replace")))
    with tempfile.TemporaryDirectory() as folder:
        for name, weights in {"learned": given.weights, "AdamW 1e-3": "adamw"}.items():
            print(
                f"{name:<11} loss {train(weights, given.steps, text, Path(folder)):.4f} after {given.steps} steps"
            )


if __name__ == "__main__":
    main()
