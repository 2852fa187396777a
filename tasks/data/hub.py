"""Image data sets of the hub, or the same files in a local folder."""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tasks.data.images import LabelledImages
from tasks.data.source import load_splits

if TYPE_CHECKING:
    from datasets import Dataset

EMBEDDED = "digits"
JPEG_START = b"\xff\xd8"


def images(
    name: str,
    hub_id: str,
    root: str | None,
    image_column: str,
    label_column: str,
    image_size: int,
) -> LabelledImages:
    """Load the ``train`` and ``test`` splits of an image data set into memory.

    Args:
        name: name in reports, and of the folder below ``root``. Size and, where the stored pixels
            went through JPEG, a mark of that are added to it.
        hub_id: data set on the hub.
        root: folder that holds ``name/`` (or is that folder) with parquet files; None for the hub
            or its local cache.
        image_column: column of the images.
        label_column: column of the classes.
        image_size: height and width in pixels; images are resized by antialiased bilinear
            filtering.

    Raises:
        ValueError: the size is not positive, a column is missing, or the files cannot be read.
        FileNotFoundError: no parquet files below ``root``.
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}.")

    splits = load_splits(name, hub_id, root, EMBEDDED, columns=(image_column, label_column))
    train_images = _pixels(splits["train"], image_column, image_size)
    test_images = _pixels(splits["test"], image_column, image_size)
    train_labels = _labels(splits["train"], label_column)
    test_labels = _labels(splits["test"], label_column)

    mark = " (JPEG pixels)" if _is_jpeg(splits["train"], image_column) else ""
    return LabelledImages(
        f"{name} {image_size}x{image_size}{mark}",
        train_images,
        train_labels,
        test_images,
        test_labels,
        num_classes=int(train_labels.max()) + 1,
    )


def _encoded(split: "Dataset", column: str) -> "Dataset":
    """The column's images as the bytes they are stored in."""
    import datasets

    return split.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _is_jpeg(split: "Dataset", column: str) -> bool:
    first = _encoded(split, column)[0]
    return first[column]["bytes"][:2] == JPEG_START


def _pixels(split: "Dataset", column: str, size: int) -> Tensor:
    """Images ``(n, channels, size, size)``, float32 in [0, 1]."""

    def decode(row: dict[str, Any]) -> np.ndarray:
        image = Image.open(io.BytesIO(row[column]["bytes"]))
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)  # (size, size), and channels last where there are several
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    with ThreadPoolExecutor() as pool:  # decoding and resizing release the interpreter lock
        decoded = list(pool.map(decode, _encoded(split, column)))
    return torch.from_numpy(np.stack(decoded)).float() / 255


def _labels(split: "Dataset", column: str) -> Tensor:
    """The class of every image, ``(n,)`` int64."""
    return torch.tensor(split[column][:], dtype=torch.int64)
