"""Small causal transformer.

Legend: B batch, L length, D width of the residual stream, H heads, S size of a head.
"""

from collections.abc import Sequence
from math import sqrt

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.networks.base import Network, check_sizes


class Transformer(Network):
    """Pre-norm decoder: learned positions, blocks of causal attention and MLP, linear head.

    Queries, keys and values have tensors of their own, so that their axes may permute apart.

    Args:
        input_shape: ``(length,)`` of the token sequences.
        num_outputs: size of the vocabulary, read and written.
        width: width of the residual stream.
        num_blocks: attention + MLP blocks.
        num_heads: attention heads.
        head_size: width of a head.
        mlp_size: hidden units of the MLPs.

    Raises:
        ValueError: a size is below 1.

    Source: Vaswani et al. 2017 (arXiv 1706.03762), with the norms before each part (Xiong et al.
    2020, arXiv 2002.04745).
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
        length = input_shape[0]
        check_sizes(
            num_outputs=num_outputs,
            width=width,
            num_blocks=num_blocks,
            num_heads=num_heads,
            head_size=head_size,
            mlp_size=mlp_size,
            length=length,
        )

        self.embed = nn.Embedding(num_outputs, width)
        self.position = nn.Embedding(length, width)
        self.blocks = nn.ModuleList()
        for _ in range(num_blocks):
            self.blocks.append(Block(width, num_heads, head_size, mlp_size))

        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_outputs)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        length = inputs.shape[1]
        stream = self.embed(inputs) + self.position.weight[:length]  # (B, L, D)
        for block in self.blocks:
            stream = block(stream)
        return self.head(self.norm(stream))  # (B, L, vocabulary)


class Block(nn.Module):
    """``x + attention(norm(x))``, then ``x + mlp(norm(x))``.

    Args:
        width: width of the residual stream.
        num_heads: attention heads.
        head_size: width of a head.
        mlp_size: hidden units of the MLP.
        causal: whether a position sees itself and those before it only, or all.
    """

    def __init__(
        self, width: int, num_heads: int, head_size: int, mlp_size: int, causal: bool = True
    ) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.causal = causal

        all_heads = num_heads * head_size
        self.attention_norm = nn.LayerNorm(width)
        self.mlp_norm = nn.LayerNorm(width)
        self.query = nn.Linear(width, all_heads)
        self.key = nn.Linear(width, all_heads)
        self.value = nn.Linear(width, all_heads)
        self.mix = nn.Linear(all_heads, width)
        self.expand = nn.Linear(width, mlp_size)
        self.contract = nn.Linear(mlp_size, width)

    def forward(self, stream: Tensor) -> Tensor:
        """``(B, L, D) -> (B, L, D)``."""
        attended = self._attend(self.attention_norm(stream))
        stream = stream + self.mix(attended)

        hidden = nn.functional.gelu(self.expand(self.mlp_norm(stream)))  # (B, L, mlp_size)
        return stream + self.contract(hidden)

    def _attend(self, inputs: Tensor) -> Tensor:
        """Attention of all heads, ``(B, L, D) -> (B, L, H * S)``.

        Written out, so that vmap over chains sees plain products.
        """
        query = self._split_heads(self.query(inputs))
        key = self._split_heads(self.key(inputs))
        value = self._split_heads(self.value(inputs))

        scores = query @ key.transpose(-1, -2) / sqrt(query.shape[-1])  # (B, H, L, L)
        if self.causal:
            length = scores.shape[-1]
            future = torch.ones(length, length, dtype=torch.bool, device=scores.device).triu(1)
            scores = scores.masked_fill(future, -torch.inf)

        attended = scores.softmax(-1) @ value  # (B, H, L, S)
        return attended.transpose(1, 2).flatten(2)

    def _split_heads(self, features: Tensor) -> Tensor:
        """``(B, L, H * S) -> (B, H, L, S)``."""
        return features.unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
