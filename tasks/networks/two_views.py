"""Two random views of every image through one encoder, for losses that bring them together.

Legend: B batch, C channels, H height, W width, E embedding.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from tasks.networks.base import check_sizes
from tasks.networks.initialised import initialised


class TwoViews(nn.Module):
    """Embeddings of two views of each image, shifted by whole pixels and noisy.

    Args:
        input_shape: of one image, ``(C, H, W)``.
        encoder: constructor ``(input_shape, embed_size) -> nn.Module``.
        embed_size: numbers in an embedding.
        shift: most pixels by which a view is moved, in each direction; what moves in is black.
        noise: standard deviation that is added to every pixel.

    Raises:
        ValueError: a value is out of its range.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        encoder: Callable[..., nn.Module],
        embed_size: int = 16,
        shift: int = 1,
        noise: float = 0.1,
    ) -> None:
        super().__init__()
        check_sizes(embed_size=embed_size)
        if shift < 0 or noise < 0:
            raise ValueError(f"shift and noise must not be negative, got {shift} and {noise}.")
        self.shift = shift
        self.noise = noise
        self.encoder = initialised(encoder, input_shape, embed_size)

    @override
    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        first = self.encoder(self._view(images))  # (B, E)
        second = self.encoder(self._view(images))
        return first, second

    def _view(self, images: Tensor) -> Tensor:
        moved = shifted(images, self.shift)
        return moved + self.noise * torch.randn_like(moved)


def shifted(images: Tensor, most: int) -> Tensor:
    """Move each image by whole pixels, drawn from -most to most in both directions.

    Args:
        images: ``(B, C, H, W)``.
        most: pixels; 0 leaves the images.
    """
    batch_size, _, height, width = images.shape
    draws = torch.rand(batch_size, 2, device=images.device)
    offsets = ((2 * most + 1) * draws).long()  # (B, 2) from 0 to 2 * most

    rows = offsets[:, :1] + torch.arange(height, device=images.device)  # (B, H)
    columns = offsets[:, 1:] + torch.arange(width, device=images.device)  # (B, W)
    number = torch.arange(batch_size, device=images.device)[:, None, None]

    framed = functional.pad(images, [most] * 4).movedim(1, -1)  # (B, H + 2 most, W + 2 most, C)
    return framed[number, rows[:, :, None], columns[:, None, :]].movedim(-1, 1)
