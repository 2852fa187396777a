"""Labelled images as tensors, whatever they come from."""

from dataclasses import dataclass

from torch import Tensor

from tasks.data.fingerprint import fingerprint_of


@dataclass(frozen=True)
class LabelledImages:
    """Images and classes, split for inner training and for held-out accuracy.

    Args:
        name: what reports call the data, e.g. ``digits 8x8``.
        train_images: ``(n, channels, height, width)`` float32 in [0, 1].
        train_labels: ``(n,)`` int64.
        test_images: as ``train_images``; never trained on.
        test_labels: as ``train_labels``.
        num_classes: number of classes.
    """

    name: str
    train_images: Tensor
    train_labels: Tensor
    test_images: Tensor
    test_labels: Tensor
    num_classes: int

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one image, ``(channels, height, width)``."""
        return tuple(self.train_images.shape[1:])

    @property
    def fingerprint(self) -> str:
        """First 16 hex digits of the SHA-256 of all tensors."""
        return fingerprint_of(
            (self.train_images, self.train_labels, self.test_images, self.test_labels)
        )
