"""Data as people have them: tensors, arrays, data sets of torch and of the hub, files."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, TensorDataset, default_collate

from tasks.data.images import LabelledImages
from tasks.module_data import Columns, DataSource, InMemory
from tasks.module_disk import OnDisk, decoded_folder
from tasks.module_memory import AUTO, check_choice, stays_on_disk

if TYPE_CHECKING:
    from datasets import Dataset

TEST = "test"
SUFFIXES = (".csv", ".parquet")


def read(
    data: Any, names: Sequence[str] | None, in_memory: bool | str = AUTO
) -> dict[str, DataSource]:
    """Read data of any kind into memory, or into files where they are too large for it.

    Args:
        data: tensors or arrays (one, a tuple, a dict), a map-style ``torch.utils.data.Dataset``,
            a ``datasets.Dataset`` or ``DatasetDict``, ``LabelledImages``, a ``DataSource``, the
            path of a CSV or parquet file, or the id of a data set on the hub.
        names: columns that are needed, None for all. Columns of a tuple are called "0", "1", ...
        in_memory: see ``ModuleTask``.

    Returns:
        dict[str, DataSource]: ``train``, and ``test`` where the data have a part of that name.

    Raises:
        ValueError: they are of another kind, or lack a column, or it holds no numbers.
        FileNotFoundError: there is no such file.
        ConnectionError: the hub cannot be reached and its cache does not hold the data set.
    """
    check_choice(in_memory)
    if isinstance(data, DataSource):
        return {"train": data}
    if isinstance(data, LabelledImages):
        _refuse_on_disk(data, in_memory)
        return _images(data)

    is_bare = isinstance(data, Tensor | np.ndarray | tuple | list | Mapping)
    name = "tensors" if is_bare else type(data).__name__
    if isinstance(data, str | Path):
        name = Path(data).name if _is_file(data) else str(data)
        data = _file(Path(data), in_memory) if _is_file(data) else _hub(str(data))

    if _is_of_hub(data, "DatasetDict"):
        splits = {split: data[split] for split in ("train", TEST) if split in data}
        if "train" not in splits:
            raise ValueError(f"data must have a split train, it has: {', '.join(data)}.")
    else:
        splits = {"train": data}

    sources: dict[str, DataSource] = {}
    for split, part in splits.items():
        if _is_of_hub(part, "Dataset"):
            sources[split] = _table(name, part, names, in_memory)
            continue
        _refuse_on_disk(part, in_memory)
        sources[split] = InMemory(name, _needed(_columns(part, names), names))
    return sources


def _refuse_on_disk(data: Any, in_memory: bool | str) -> None:
    if in_memory is False:
        raise ValueError(
            "in_memory=false is for a datasets.Dataset, the path of a CSV or parquet file, or a "
            f"hub id; {type(data).__name__} is in memory already."
        )


def _images(data: LabelledImages) -> dict[str, DataSource]:
    train = {"0": data.train_images, "1": data.train_labels}
    test = {"0": data.test_images, "1": data.test_labels}
    return {"train": InMemory(data.name, train), TEST: InMemory(data.name, test)}


def _columns(data: Any, names: Sequence[str] | None) -> Columns:
    """The columns of one split."""
    if isinstance(data, Tensor | np.ndarray):
        data = (data,)
    if isinstance(data, TensorDataset):
        data = data.tensors

    if isinstance(data, tuple | list) and all(isinstance(x, Tensor | np.ndarray) for x in data):
        return {str(number): _tensor(str(number), x) for number, x in enumerate(data)}
    if isinstance(data, Mapping):
        return {str(name): _tensor(str(name), x) for name, x in data.items()}

    kind = type(data).__name__
    if isinstance(data, DataLoader):
        raise ValueError("data must be a data set, got a DataLoader; give its loader.dataset.")
    is_stream = isinstance(data, IterableDataset) or _is_of_hub(data, "IterableDataset")
    if is_stream or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
        raise ValueError(
            f"data must be tensors or a data set whose rows have numbers, got {kind}; it needs "
            "__len__ and __getitem__."
        )
    return _collated(data)


def _collated(data: Any) -> Columns:
    """The items of a map-style data set, stacked."""
    if len(data) == 0:
        raise ValueError("data must have at least one row, got 0.")

    items = [data[row] for row in range(len(data))]
    try:
        columns = default_collate(items)
    except (RuntimeError, TypeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(
            f"items of data {type(data).__name__} must be tensors or numbers of one shape "
            f"({reason}); give it a transform that makes them so."
        ) from error

    if isinstance(columns, Tensor):
        columns = [columns]
    if isinstance(columns, list | tuple):
        columns = {str(number): column for number, column in enumerate(columns)}
    return {name: _cast(_tensor(name, column)) for name, column in columns.items()}


def _table(
    name: str, data: "Dataset", names: Sequence[str] | None, in_memory: bool | str
) -> DataSource:
    """Columns of a data set of the hub's kind, in memory or in files."""
    import datasets

    _check_names(data.column_names, names)
    needed = list(names or data.column_names)
    images = tuple(name for name in needed if isinstance(data.features[name], datasets.Image))
    decode = partial(_decoded, names=needed, images=images)

    if len(data) and stays_on_disk(in_memory, len(data) * _row_bytes(data, decode, images)):
        return OnDisk(name, decoded_folder(data, needed, images, decode), images)

    columns = decode(data, 0)
    for image in images:
        columns[image] = columns[image].float() / 255
    return InMemory(name, columns)


def _decoded(data: "Dataset", start: int, names: list[str], images: tuple[str, ...]) -> Columns:
    """Columns of some rows, images as bytes; ``start`` is the number of the first row."""
    from tasks.data.hub import decoded

    columns = {}
    for name in names:
        if name in images:
            columns[name] = decoded(data, name, start=start)
        else:
            columns[name] = _tensor(name, data.with_format("numpy")[name][:])
    return columns


def _row_bytes(data: "Dataset", decode: Callable[..., Columns], images: tuple[str, ...]) -> int:
    """What a row takes in memory, by the first one."""
    num_bytes = 0
    for name, column in decode(data.select([0]), 0).items():
        num_bytes += column.numel() * (4 if name in images else column.element_size())
    return num_bytes


def _tensor(name: str, values: Any) -> Tensor:
    """A column as a tensor; what is none yet gets torch's usual types.

    Raises:
        ValueError: it holds something else than numbers.
    """
    if isinstance(values, Tensor):
        return values.detach()

    array = np.asarray(values) if not isinstance(values, list) else _stacked(name, values)
    if array.dtype.kind not in "biufc":
        example = array.flat[0].tolist() if array.dtype.kind == "U" else array.flat[0]
        raise ValueError(
            f"column {name!r} of data must hold numbers in every row, all of one shape, got "
            f"{example!r:.40}; encode it, or leave it out."
        )
    return _cast(torch.from_numpy(np.array(array, order="C")))  # a copy: arrays may be read-only


def _stacked(name: str, rows: list[Any]) -> np.ndarray:
    """Rows of one shape; of several shapes the array holds objects."""
    shapes = {np.shape(row) for row in rows}
    if len(shapes) == 1:
        return np.asarray(rows)
    if len(shapes) > 1:
        raise ValueError(
            f"column {name!r} of data must have rows of one shape, got {sorted(shapes)[0]} and "
            f"{sorted(shapes)[-1]}; pad or cut them."
        )
    return np.zeros(0)  # refused as data without rows


def _cast(column: Tensor) -> Tensor:
    """Numbers of Python and numpy in the types that layers and losses take."""
    if column.dtype == torch.float64:
        return column.to(torch.get_default_dtype())
    if column.dtype in (torch.int8, torch.int16, torch.int32):
        return column.long()
    return column


def _needed(columns: Columns, names: Sequence[str] | None) -> Columns:
    _check_names(list(columns), names)
    return columns if names is None else {name: columns[name] for name in names}


def _check_names(known: Sequence[str], names: Sequence[str] | None) -> None:
    for name in names or ():
        if name not in known:
            raise ValueError(f"data lack the column {name!r}; they have: {', '.join(known)}.")


def _is_of_hub(data: Any, kind: str) -> bool:
    """Whether it is of a class of the datasets library, which is slow to import."""
    kinds = [(base.__module__.partition(".")[0], base.__name__) for base in type(data).__mro__]
    return ("datasets", kind) in kinds


def _is_file(name: str | Path) -> bool:
    path = Path(name)
    return isinstance(name, Path) or path.suffix in SUFFIXES or path.exists()


def _file(path: Path, in_memory: bool | str) -> "Dataset":
    """A table in a file; of one that stays on the disk the datasets library makes its own file."""
    import datasets
    import pyarrow
    from datasets.exceptions import DatasetGenerationError
    from pyarrow import csv, parquet

    readers: dict[str, Callable[..., pyarrow.Table]] = {
        ".csv": csv.read_csv,
        ".parquet": parquet.read_table,
    }
    path = path.expanduser()
    if path.suffix not in readers:
        raise ValueError(f"data must be a file of {', '.join(SUFFIXES)}, got {path}.")
    if not path.is_file():
        raise FileNotFoundError(f"data: there is no file {path.absolute()}.")

    try:
        if stays_on_disk(in_memory, path.stat().st_size):
            kind = path.suffix.removeprefix(".")
            return datasets.load_dataset(kind, data_files=str(path), split="train")
        return datasets.Dataset(readers[path.suffix](path))
    except (pyarrow.ArrowException, DatasetGenerationError, OSError, ValueError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ValueError(f"data: the file {path} cannot be read: {reason}.") from error


def _hub(hub_id: str) -> Any:
    from tasks.data.source import load_hub

    return load_hub(hub_id, "give data the path of a CSV or parquet file, or a loaded data set")
