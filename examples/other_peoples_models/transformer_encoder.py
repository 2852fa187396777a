"""A text model on ``nn.TransformerEncoder``.

Legend: B batch, L length, V vocabulary, W width.
"""

import math

import torch
from torch import Tensor, nn

from examples.other_peoples_models.data import VOCABULARY, windows
from tasks import ModuleTask
from tasks.module_losses import next_token_cross_entropy

LENGTH = 16


def waves(length: int, width: int) -> Tensor:
    """Positions as sines and cosines ``(L, W)``, as the tutorials of PyTorch have them."""
    positions = torch.arange(length)[:, None]
    frequencies = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    table = torch.zeros(length, width)
    table[:, 0::2] = torch.sin(positions * frequencies)
    table[:, 1::2] = torch.cos(positions * frequencies)
    return table


class TransformerModel(nn.Module):
    """Two blocks of causal attention; positions and mask are buffers."""

    def __init__(self, width: int = 32, num_heads: int = 2) -> None:
        super().__init__()
        self.width = width
        self.embedding = nn.Embedding(VOCABULARY, width)
        layer = nn.TransformerEncoderLayer(width, num_heads, 64, dropout=0.1, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2)
        self.linear = nn.Linear(width, VOCABULARY)
        self.register_buffer("positions", waves(LENGTH, width))
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(LENGTH))

    def forward(self, tokens: Tensor) -> Tensor:
        """``(B, L) -> (B, L, V)``."""
        stream = self.embedding(tokens) * math.sqrt(self.width) + self.positions
        return self.linear(self.encoder(stream, mask=self.mask))


def make_task(root: str | None = None) -> ModuleTask:
    """Prediction of the next byte.

    Args:
        root: folder of real data, see ``data``.
    """
    train, test = windows(root, LENGTH)
    return ModuleTask(
        TransformerModel,
        next_token_cross_entropy,
        train,
        test=test,
        batch_size=16,
        name="transformer_encoder",
    )
