"""Image data sets of the hub, or the same files in a local folder."""

import io
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow
import torch
from PIL import Image
from torch import Tensor

from tasks.data.images import LabelledImages
from tasks.data.source import load_splits

if TYPE_CHECKING:
    from datasets import Dataset

EMBEDDED = "digits"
MODES = ("L", "LA", "RGB", "RGBA")  # of Pillow, in which a number is an intensity of 8 bits
MOST_CLASSES = 100_000  # a network has an output for each
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
        ValueError: the size is not positive, a column is missing, the files cannot be read, or
            an image or a label is none.
        FileNotFoundError: no parquet files below ``root``.
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.
    """
    if image_size < 1:
        raise ValueError(f"image_size must be at least 1, got {image_size}.")

    splits = load_splits(name, hub_id, root, EMBEDDED, columns=(image_column, label_column))
    train_images = pixels(splits["train"], image_column, image_size)
    test_images = pixels(splits["test"], image_column, image_size)
    train_labels = _labels(splits["train"], label_column)
    test_labels = _labels(splits["test"], label_column)

    num_classes = _num_classes(train_labels, test_labels, label_column)
    _check_channels(train_images, test_images, image_column)

    mark = " (JPEG pixels)" if _is_jpeg(splits["train"], image_column) else ""
    return LabelledImages(
        f"{name} {image_size}x{image_size}{mark}",
        train_images,
        train_labels,
        test_images,
        test_labels,
        num_classes=num_classes,
    )


def _encoded(split: "Dataset", column: str) -> "Dataset":
    """The column's images as the bytes they are stored in."""
    import datasets

    try:
        return split.select_columns([column]).cast_column(column, datasets.Image(decode=False))
    except (TypeError, ValueError, pyarrow.ArrowException) as error:
        raise ValueError(f"column {column} must hold images: {error}.") from error


def _is_jpeg(split: "Dataset", column: str) -> bool:
    first = _encoded(split, column)[0]
    return first[column]["bytes"][:2] == JPEG_START


def pixels(split: "Dataset", column: str, size: int | None = None) -> Tensor:
    """Images ``(n, channels, height, width)``, float32 in [0, 1]; arguments as of ``decoded``."""
    return decoded(split, column, size).float() / 255


def decoded(split: "Dataset", column: str, size: int | None = None, start: int = 0) -> Tensor:
    """Images ``(n, channels, height, width)`` of uint8.

    Args:
        split: a data set with the column.
        column: of images.
        size: height and width in pixels; None leaves them, and then all must be equal.
        start: number of the first row, for messages.

    Raises:
        ValueError: an image is none, or they differ in channels or size.
    """

    def decode(numbered: tuple[int, dict[str, Any]]) -> np.ndarray:
        number, row = numbered
        try:
            return _decode(row[column], size)
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"column {column}, row {start + number}: {error}.") from error

    with ThreadPoolExecutor() as pool:  # decoding and resizing release the interpreter lock
        pictures = list(pool.map(decode, enumerate(_encoded(split, column))))

    shapes = sorted({picture.shape for picture in pictures})
    channels = sorted({shape[0] for shape in shapes})
    if len(channels) != 1:
        counts = ", ".join(map(str, channels)) or "there is none"
        raise ValueError(f"images of column {column} must have as many channels, got: {counts}.")
    if len(shapes) != 1:
        raise ValueError(
            f"images of column {column} must be of one size, got {shapes[0][1:]} and "
            f"{shapes[-1][1:]} pixels; resize them."
        )
    return torch.from_numpy(np.stack(pictures))


def _decode(cell: Any, size: int | None) -> np.ndarray:
    """One image, ``(channels, height, width)`` uint8.

    Raises:
        ValueError: it is no image, or its numbers are no intensities of 8 bits.
    """
    content = cell.get("bytes") if isinstance(cell, dict) else None
    if not content:
        raise ValueError("there is no image")

    image = Image.open(io.BytesIO(content))
    if image.mode not in MODES:
        # numbers of a palette's colours are none, and those of 16 bits would leave [0, 1]
        raise ValueError(
            f"an image must be of 8 bits in one of Pillow's modes {', '.join(MODES)}, got mode "
            f"{image.mode}; convert it, as with Pillow's image.convert('RGB')"
        )

    if size is not None and image.size != (size, size):
        image = image.resize((size, size), Image.Resampling.BILINEAR)
    values = np.asarray(image)  # (height, width), and channels last where there are several
    return values[None] if values.ndim == 2 else np.moveaxis(values, -1, 0)


def _labels(split: "Dataset", column: str) -> Tensor:
    """The class of every image, ``(n,)`` int64.

    Raises:
        ValueError: a label is no class.
    """
    for number, label in enumerate(split[column][:]):
        # no cast: 1.7 is no class, and a truth value is no number of one
        is_class = isinstance(label, int) and not isinstance(label, bool)
        if not is_class or not 0 <= label < MOST_CLASSES:
            raise ValueError(
                f"column {column} must hold whole numbers from 0 to {MOST_CLASSES - 1}, got "
                f"{label!r} in row {number}."
            )

    return torch.tensor(split[column][:], dtype=torch.int64)


def _num_classes(train: Tensor, test: Tensor, column: str) -> int:
    """How many classes the labels of the train split have; the test split has no others."""
    num_classes = int(train.max()) + 1
    if test.max() >= num_classes:
        raise ValueError(
            f"column {column} of the test split must hold classes of the train split, which are 0 "
            f"to {num_classes - 1}, got {int(test.max())}."
        )
    return num_classes


def _check_channels(train: Tensor, test: Tensor, column: str) -> None:
    if train.shape[1] != test.shape[1]:
        raise ValueError(
            f"images of column {column} must have as many channels in both splits, got "
            f"{train.shape[1]} and {test.shape[1]}."
        )
