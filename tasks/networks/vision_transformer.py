"""Small vision transformer. Legend: B batch, N patches, D width."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tasks.networks.base import Network, check_sizes
from tasks.networks.transformer import Block


class VisionTransformer(Network):
    """Patches to tokens, learned positions, pre-norm blocks in which every patch sees all, mean pooling, linear head.

    Args:
        input_shape: ``(channels, height, width)``.
        num_outputs: outputs, e.g. classes.
        patch: height and width of a patch, pixels; divides those of the image.
        width: width of the residual stream.
        num_blocks: attention + MLP blocks.
        num_heads: attention heads.
        head_size: width of a head.
        mlp_size: hidden units of the MLPs.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), with mean pooling in place of a class token.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        patch: int = 2,
        width: int = 24,
        num_blocks: int = 2,
        num_heads: int = 2,
        head_size: int = 12,
        mlp_size: int = 48,
    ) -> None:
        super().__init__()
        if len(input_shape) != 3:
            raise ValueError(
                f"a vision transformer needs inputs (channels, height, width), got {tuple(input_shape)}."
            )
        check_sizes(
            num_outputs=num_outputs,
            patch=patch,
            width=width,
            num_blocks=num_blocks,
            num_heads=num_heads,
        )
        check_sizes(head_size=head_size, mlp_size=mlp_size)
        channels, height, columns = input_shape
        if height % patch or columns % patch:
            raise ValueError(
                f"patch must divide the height {height} and the width {columns} of images, got {patch}."
            )
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.zeros(height * columns // patch**2, width))
        self.blocks = nn.ModuleList(
            Block(width, num_heads, head_size, mlp_size, False) for _ in range(num_blocks)
        )
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, channels, height, width) -> (B, num_outputs)``; the stream is ``(B, N, D)``."""
        stream = self.embed(inputs).flatten(2).transpose(1, 2) + self.position
        for block in self.blocks:
            stream = block(stream)
        return self.head(self.norm(stream).mean(1))
