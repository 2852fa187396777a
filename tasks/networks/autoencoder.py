"""Autoencoders of images: a plain one and a variational one, both of linear layers.

Legend: B batch, D pixels of all channels, H hidden units, Z latents.
"""

from collections.abc import Sequence
from math import prod

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.networks.base import check_sizes
from tasks.unsupervised_losses import Decoded


class Autoencoder(nn.Module):
    """Images to a short code and back: D-H-Z-H-D, with ReLU at the hidden units.

    Args:
        input_shape: of one image.
        hidden_size: units between pixels and code, on both sides.
        code_size: numbers in a code.

    Raises:
        ValueError: a size is below 1.

    >>> Autoencoder((1, 8, 8))(torch.zeros(5, 1, 8, 8)).shape
    torch.Size([5, 1, 8, 8])
    """

    def __init__(
        self, input_shape: Sequence[int], *, hidden_size: int = 32, code_size: int = 8
    ) -> None:
        super().__init__()
        check_sizes(hidden_size=hidden_size, code_size=code_size)
        num_pixels = prod(input_shape)
        self.encoder = nn.Sequential(
            nn.Flatten(),
            nn.Linear(num_pixels, hidden_size),
            nn.ReLU(),
            nn.Linear(hidden_size, code_size),
        )
        self.decoder = decoder(code_size, hidden_size, num_pixels)

    @override
    def forward(self, images: Tensor) -> Tensor:
        return self.decoder(self.encoder(images)).reshape(images.shape)


class VariationalAutoencoder(nn.Module):
    """A normal distribution of codes for each image; a draw of it is decoded.

    Args:
        input_shape: of one image.
        hidden_size: units between pixels and code, on both sides.
        code_size: latents.

    Raises:
        ValueError: a size is below 1.

    Source: Kingma & Welling 2014 (arXiv 1312.6114), section 3 and appendix C.1.
    """

    def __init__(
        self, input_shape: Sequence[int], *, hidden_size: int = 32, code_size: int = 8
    ) -> None:
        super().__init__()
        check_sizes(hidden_size=hidden_size, code_size=code_size)
        num_pixels = prod(input_shape)
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(num_pixels, hidden_size), nn.ReLU())
        self.mean = nn.Linear(hidden_size, code_size)
        self.log_variance = nn.Linear(hidden_size, code_size)
        self.decoder = decoder(code_size, hidden_size, num_pixels)

    @override
    def forward(self, images: Tensor) -> Decoded:
        hidden = self.encoder(images)  # (B, H)
        mean = self.mean(hidden)  # (B, Z)
        log_variance = self.log_variance(hidden)

        noise = torch.randn_like(mean)
        code = mean + (0.5 * log_variance).exp() * noise
        return Decoded(self.decoder(code).reshape(images.shape), mean, log_variance)


def decoder(code_size: int, hidden_size: int, num_pixels: int) -> nn.Sequential:
    """Codes ``(B, Z)`` to pixels ``(B, D)``."""
    return nn.Sequential(
        nn.Linear(code_size, hidden_size), nn.ReLU(), nn.Linear(hidden_size, num_pixels)
    )
