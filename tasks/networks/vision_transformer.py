"""Small vision transformer.

Legend: B batch, N patches, D width of the residual stream.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.networks.base import Network, check_sizes, image_sizes
from tasks.networks.transformer import Block


class VisionTransformer(Network):
    """Patches to tokens, pre-norm blocks in which every patch sees all, mean pooling, linear head.

    Args:
        input_shape: ``(channels, height, width)``.
        num_outputs: outputs, e.g. classes.
        patch: height and width of a patch, pixels; divides those of the image.
        width: width of the residual stream.
        num_blocks: attention + MLP blocks.
        num_heads: attention heads.
        head_size: width of a head.
        mlp_size: hidden units of the MLPs.

    Raises:
        ValueError: a size is out of its range, or the inputs are no images.

    Source: Dosovitskiy et al. 2021 (arXiv 2010.11929), with mean pooling instead of a class token.
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
        channels, image_height, image_width = image_sizes("a vision transformer", input_shape)
        check_sizes(
            num_outputs=num_outputs,
            patch=patch,
            width=width,
            num_blocks=num_blocks,
            num_heads=num_heads,
            head_size=head_size,
            mlp_size=mlp_size,
        )

        if image_height % patch or image_width % patch:
            raise ValueError(
                f"patch must divide the height {image_height} and the width {image_width} "
                f"of images, got {patch}."
            )

        num_patches = image_height * image_width // patch**2
        self.embed = nn.Conv2d(channels, width, patch, stride=patch)
        self.position = nn.Parameter(torch.zeros(num_patches, width))
        self.blocks = nn.ModuleList()
        for _ in range(num_blocks):
            self.blocks.append(Block(width, num_heads, head_size, mlp_size, causal=False))

        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, num_outputs)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        patches = self.embed(inputs).flatten(2).transpose(1, 2)  # (B, N, D)
        stream = patches + self.position
        for block in self.blocks:
            stream = block(stream)

        pooled = self.norm(stream).mean(1)  # (B, D)
        return self.head(pooled)
