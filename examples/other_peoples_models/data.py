"""Data for models of other people: what packages ship, or real data sets in a folder.

Legend: n number, L length, C channels.
"""

import torch
from torch import Tensor

from tasks.data.embedded import digits
from tasks.data.hub import images
from tasks.data.images import LabelledImages
from tasks.data.text import docs_text, hub_text

VOCABULARY = 128  # bytes of ASCII
SIZE = 16  # pixels of a side of CIFAR-10, half of the original


def labelled_images(root: str | None) -> LabelledImages:
    """Images in ten classes: CIFAR-10 of a folder, else the digits that scikit-learn ships.

    Args:
        root: folder that holds ``cifar10/`` with parquet files; None for digits.
    """
    if root is None:
        return digits()
    return images("cifar10", "uoft-cs/cifar10", root, "img", "label", SIZE)


def windows(root: str | None, length: int) -> tuple[Tensor, Tensor]:
    """Pieces of text ``(n, L)`` to train on and to hold out, as numbers of bytes.

    Args:
        root: folder that holds ``tiny_shakespeare/`` with parquet files; None for the help topics
            that Python ships.
        length: L.
    """
    if root is None:
        text = docs_text("byte", VOCABULARY)
    else:
        name = "tiny_shakespeare"
        text = hub_text(name, f"karpathy/{name}", root, None, "text", "byte", VOCABULARY)
    return _cut(text.train, length), _cut(text.test, length)


def _cut(tokens: Tensor, length: int) -> Tensor:
    num_windows = len(tokens) // length
    return torch.as_tensor(tokens)[: num_windows * length].view(num_windows, length)
