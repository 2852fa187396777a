"""Small causal transformer. Legend: B batch, L length, D width, H heads."""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn

from tasks.networks.base import Network, check_sizes


class Transformer(Network):
    """Pre-norm decoder: learned positions, blocks of causal attention and MLP on one residual stream, linear head.

    Queries, keys and values have tensors of their own, so that their axes may permute apart.

    Args:
        input_shape: ``(length,)`` of the token sequences.
        num_outputs: size of the vocabulary, read and written.
        width: width of the residual stream.
        num_blocks: attention + MLP blocks.
        num_heads: attention heads.
        head_size: width of a head.
        mlp_size: hidden units of the MLPs.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        width: int = 32,
        num_blocks: int = 2,
        num_heads: int = 4,
        head_size: int = 8,
        mlp_size: int = 128,
    ) -> None:
        super().__init__()
        check_sizes(
            num_outputs=num_outputs, width=width, num_blocks=num_blocks, num_heads=num_heads
        )
        check_sizes(head_size=head_size, mlp_size=mlp_size, length=input_shape[0])
        self.embed, self.position = (
            nn.Embedding(num_outputs, width),
            nn.Embedding(input_shape[0], width),
        )
        self.blocks = nn.ModuleList(
            Block(width, num_heads, head_size, mlp_size) for _ in range(num_blocks)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, L) -> (B, L, vocabulary)``."""
        stream = self.embed(inputs) + self.position.weight[: inputs.shape[1]]
        for block in self.blocks:
            stream = block(stream)
        return self.head(self.norm(stream))


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Args:
        width: width of the residual stream.
        num_heads: attention heads.
        head_size: width of a head.
        mlp_size: hidden units of the MLP.
        causal: positions see none behind them.
    """

    def __init__(
        self, width: int, num_heads: int, head_size: int, mlp_size: int, causal: bool = True
    ) -> None:
        super().__init__()
        self.num_heads, self.causal = num_heads, causal
        inner = num_heads * head_size
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, inner) for _ in range(3))
        self.mix = nn.Linear(inner, width)
        self.expand, self.contract = nn.Linear(width, mlp_size), nn.Linear(mlp_size, width)

    def forward(self, stream: Tensor) -> Tensor:
        """``(B, L, D) -> (B, L, D)``."""
        stream = stream + self.mix(self._attend(self.attention_norm(stream)))
        return stream + self.contract(nn.functional.gelu(self.expand(self.mlp_norm(stream))))

    def _attend(self, inputs: Tensor) -> Tensor:
        """Attention, written out so that vmap over chains sees plain products; ``(B, L, H * head size)``."""
        query, key, value = (
            layer(inputs).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(-1, -2) / sqrt(query.shape[-1])
        if self.causal:
            length = scores.shape[-1]
            future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, -torch.inf)
        return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)
