"""A U-Net that takes noise off images: two steps down, two up, skips that are concatenated.

Source: Ronneberger et al. 2015 (arXiv 1505.04597), with batch norm, as most of its ports have it.

Legend: B batch, C channels, H height, W width.
"""

from functools import partial

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from examples.other_peoples_models.data import labelled_images
from tasks import ModuleTask


def double_conv(inputs: int, outputs: int) -> nn.Sequential:
    """Two convolutions with norm and ReLU."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Images ``(B, C, H, W)`` in and out; H and W are multiples of 4."""

    def __init__(self, channels: int, width: int = 8) -> None:
        super().__init__()
        self.down1 = double_conv(channels, width)
        self.down2 = double_conv(width, 2 * width)
        self.bottom = double_conv(2 * width, 4 * width)
        self.pool = nn.MaxPool2d(2)
        self.up2 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.merge2 = double_conv(4 * width, 2 * width)
        self.up1 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merge1 = double_conv(2 * width, width)
        self.out = nn.Conv2d(width, channels, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Clean images of noisy ones."""
        first = self.down1(images)
        second = self.down2(self.pool(first))
        bottom = self.bottom(self.pool(second))
        x = self.merge2(torch.cat([second, self.up2(bottom)], dim=1))
        x = self.merge1(torch.cat([first, self.up1(x)], dim=1))
        return self.out(x)


def noisy(images: Tensor) -> Tensor:
    """Images with noise of a fixed seed."""
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
    return images + 0.5 * noise


def make_task(root: str | None = None) -> ModuleTask:
    """Noisy images in, clean ones out.

    Args:
        root: folder of real data, see ``data``.
    """
    images = labelled_images(root)
    train = (noisy(images.train_images), images.train_images)
    test = (noisy(images.test_images), images.test_images)
    module = partial(UNet, images.train_images.shape[1])
    return ModuleTask(module, mse_loss, train, test=test, batch_size=16, name="unet")
