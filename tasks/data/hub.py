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

EMBEDDED = "data=digits"
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
        name: name in reports, and of the folder below ``root``. Size and, where the stored pixels went through JPEG,
            a mark of that are added to it.
        hub_id: data set on the hub.
        root: folder that holds ``name/`` (or is that folder) with parquet files; None for the hub or its local cache.
        image_column: column of the images.
        label_column: column of the classes.
        image_size: height and width in pixels; images are resized by antialiased bilinear filtering.

    Raises:
        ValueError: the size is not positive, a column is missing, or the files cannot be read.
        FileNotFoundError: no parquet files below ``root``.
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}.")
    splits = load_splits(name, hub_id, root, EMBEDDED, columns=(image_column, label_column))
    train, test = (
        _tensors(splits[split], image_column, label_column, image_size)
        for split in ("train", "test")
    )
    label = f"{name} {image_size}x{image_size}" + (
        " (JPEG pixels)" if _is_jpeg(splits["train"], image_column) else ""
    )
    return LabelledImages(label, *train, *test, num_classes=int(train[1].max()) + 1)


def _encoded(split: "Dataset", column: str) -> "Dataset":
    """The column's images as the bytes they are stored in."""
    import datasets

    return split.select_columns([column]).cast_column(column, datasets.Image(decode=False))


def _is_jpeg(split: "Dataset", column: str) -> bool:
    return _encoded(split, column)[0][column]["bytes"][:2] == JPEG_START


def _tensors(
    split: "Dataset", image_column: str, label_column: str, size: int
) -> tuple[Tensor, Tensor]:
    """Images ``(n, channels, size, size)`` float32 in [0, 1] and labels ``(n,)`` int64."""

    def decode(row: dict[str, Any]) -> np.ndarray:
        image = Image.open(io.BytesIO(row[image_column]["bytes"]))
        if image.size != (size, size):
            image = image.resize((size, size), Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[None] if pixels.ndim == 2 else np.moveaxis(pixels, -1, 0)

    with ThreadPoolExecutor() as pool:  # decoding and resizing release the interpreter lock
        pixels = np.stack(list(pool.map(decode, _encoded(split, image_column))))
    return torch.from_numpy(pixels).float() / 255, torch.tensor(
        split[label_column][:], dtype=torch.int64
    )
