"""Columns that stay on the disk: data larger than memory.

Rows are decoded once, ahead of all training, into one file for each column, which the operating
system maps into memory: a batch costs what its rows cost to copy. The files lie in the cache of the
``datasets`` library, and a run with the same data takes them as they are.
"""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np
import torch
from torch import Tensor
from typing_extensions import override

from tasks.base import Batch
from tasks.module_data import Columns, DataSource, Extremes, check_numbers

if TYPE_CHECKING:
    from datasets import Dataset

FORMAT = 1  # of the files
BLOCK = 4096  # rows that are decoded at once
FOLDER = "learned_opt"  # in the cache of the datasets library
FACTS = "facts.json"
PREFIX = "column:"  # of keys of a batch, which may hold others
Layout = tuple[tuple[int, ...], np.dtype]  # shape of a row, and type of its numbers
Decode = Callable[["Dataset", int], Columns]  # of some rows and the number of the first one


class OnDisk(DataSource):
    """Columns in files of a folder; a batch carries its rows.

    Pixels lie there as bytes and become intensities in [0, 1] on the device.

    Args:
        name: what reports call the data; that they lie on the disk is added.
        folder: written by ``decoded_folder``.
        images: names of the columns whose bytes are pixels.
        prepare: makes the columns of those of the files.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        images: tuple[str, ...] = (),
        prepare: Callable[[Columns], Columns] | None = None,
    ) -> None:
        self.name = f"{name} (on disk)"
        self.folder = folder
        self.images = images
        self.prepare = prepare
        self.facts: dict[str, Any] = json.loads((folder / FACTS).read_text())
        self.device = torch.device("cpu")

    @property
    @override
    def fingerprint(self) -> str:
        return str(self.facts["fingerprint"])

    @override
    def __len__(self) -> int:
        return int(self.facts["num_rows"])

    @override
    def draw(self, rows: Tensor) -> Batch:
        picked = rows.numpy()
        batch: Batch = {}
        for number, name in enumerate(self.facts["columns"]):
            file = _file(self.folder, number)
            batch[f"{PREFIX}{name}"] = torch.from_numpy(_mapped(file)[picked])
        return batch

    @override
    def gather(self, batch: Batch) -> Columns:
        columns: Columns = {}
        for name in self.facts["columns"]:
            column = batch[f"{PREFIX}{name}"].to(self.device)
            columns[name] = column.float() / 255 if name in self.images else column
        return columns if self.prepare is None else self.prepare(columns)

    @override
    def telling_rows(self) -> Tensor:
        return torch.tensor(self.facts["telling_rows"], dtype=torch.int64)

    @override
    def to(self, device: torch.device | str) -> Self:
        self.device = torch.device(device)
        return self


def decoded_folder(
    data: "Dataset", names: list[str], images: tuple[str, ...], decode: Decode
) -> Path:
    """The folder of the decoded columns, which is written where there is none yet.

    Args:
        data: on the disk or in memory.
        names: of the columns.
        images: those among them that hold pixels.
        decode: the columns of a part of the data.

    Raises:
        ValueError: there are no rows, or their numbers are not finite or not of one shape.
        OSError: the disk is full.
    """
    from datasets import config

    key = hashlib.sha256(repr((FORMAT, data._fingerprint, names)).encode()).hexdigest()[:32]
    cache = Path(config.HF_DATASETS_CACHE) / FOLDER
    folder = cache / key
    if (folder / FACTS).is_file():
        return folder

    cache.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f"{key}.", dir=cache))
    try:
        _write(data, names, images, decode, unfinished)
        if not (folder / FACTS).is_file():  # another rank may have been faster
            os.replace(unfinished, folder)
    except OSError:
        if not (folder / FACTS).is_file():
            raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return folder


def _write(
    data: "Dataset", names: list[str], images: tuple[str, ...], decode: Decode, folder: Path
) -> None:
    """The files of all columns, and what was learned of them on the way."""
    if len(data) == 0:
        raise ValueError("data must have at least one row, got 0.")

    extremes = Extremes()
    digest = hashlib.sha256()
    layouts: dict[str, Layout] = {}
    for start in range(0, len(data), BLOCK):
        stop = min(start + BLOCK, len(data))
        columns = decode(data.select(range(start, stop)), start)
        for number, name in enumerate(names):
            check_numbers(name, columns[name], start)
            values = columns[name].numpy()
            layout = layouts.setdefault(name, (values.shape[1:], values.dtype))
            _check_alike(name, layout, values, start)

            content = values.tobytes()
            # not through a map, where a full disk kills the process
            with _file(folder, number).open("ab") as file:
                if start == 0:
                    _write_header(file, (len(data), *values.shape[1:]), values.dtype)
                file.write(content)
            digest.update(content)
            if name not in images:
                extremes.see(name, columns[name], start)

    facts = {
        "num_rows": len(data),
        "columns": names,
        "telling_rows": extremes.rows(),
        "fingerprint": digest.hexdigest()[:16],
    }
    (folder / FACTS).write_text(json.dumps(facts))


def _check_alike(name: str, layout: Layout, values: np.ndarray, start: int) -> None:
    shape, kind = layout
    if values.shape[1:] != shape or values.dtype != kind:
        raise ValueError(
            f"column {name!r} of data must have rows of one shape and type, got {shape} {kind}, "
            f"and {values.shape[1:]} {values.dtype} from row {start} on."
        )


def _write_header(file: IO[bytes], shape: tuple[int, ...], kind: np.dtype) -> None:
    header = {
        "descr": np.lib.format.dtype_to_descr(kind),
        "fortran_order": False,
        "shape": shape,
    }
    np.lib.format.write_array_header_2_0(file, header)


def _file(folder: Path, number: int) -> Path:
    return folder / f"{number}.npy"  # names of columns may hold any sign


@lru_cache(maxsize=256)
def _mapped(file: Path) -> np.ndarray:
    """The numbers of a file; no attribute of a source, of which a copy would read all of it."""
    return np.asarray(np.load(file, mmap_mode="r"))
