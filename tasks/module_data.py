"""What a task of any module trains on: named columns, in rows that batches pick by number."""

from collections.abc import Mapping, Sequence
from typing import Protocol, Self, runtime_checkable

import torch
from torch import Tensor
from typing_extensions import override

from tasks.base import Batch
from tasks.data.fingerprint import fingerprint_of

Columns = dict[str, Tensor]


@runtime_checkable
class DataSource(Protocol):
    """Rows of named columns, wherever they lie.

    A batch goes two steps: ``draw`` outside of the inner step, on the CPU, and ``gather`` inside
    of it, where vmap, grad and compile go through. Data in memory draw numbers of rows and gather
    the rows; data that are read from a disk draw the rows themselves.

    Attributes:
        name: what reports call the data.
    """

    name: str

    @property
    def fingerprint(self) -> str:
        """Sixteen hex digits that other data do not have."""
        ...

    def __len__(self) -> int: ...

    def draw(self, rows: Tensor) -> Batch:
        """A batch of these rows, tensors on the CPU.

        Args:
            rows: numbers ``(B,)`` from 0 to ``len(self) - 1``.
        """
        ...

    def gather(self, batch: Batch) -> Columns:
        """The columns ``(B, ...)`` of what ``draw`` returned, on the device of the run."""
        ...

    def telling_rows(self) -> Tensor:
        """Numbers of rows that show what is wrong with the data or the module, where there are."""
        ...

    def to(self, device: torch.device | str) -> Self:
        """Move what lies in memory to a device, in place."""
        ...


class InMemory(DataSource):
    """Columns that lie on the device as tensors.

    Args:
        name: what reports call the data.
        columns: one row for each example.

    Raises:
        ValueError: there are no rows, columns differ in their numbers of rows, or a number is
            not finite or not real; names the column and row.

    >>> points = InMemory("points", {"x": torch.tensor([1.0, 2.0, 4.0])})
    >>> points.gather(points.draw(torch.tensor([2, 0])))["x"]
    tensor([4., 1.])
    """

    def __init__(self, name: str, columns: Mapping[str, Tensor]) -> None:
        self.name = name
        self.columns = dict(columns)
        _check(self.columns)

    @property
    @override
    def fingerprint(self) -> str:
        return fingerprint_of(self.columns.values())

    @override
    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    @override
    def draw(self, rows: Tensor) -> Batch:
        return {"index": rows}

    @override
    def gather(self, batch: Batch) -> Columns:
        return {name: column[batch["index"]] for name, column in self.columns.items()}

    @override
    def telling_rows(self) -> Tensor:
        extremes = Extremes()
        for name, column in self.columns.items():
            extremes.see(name, column)
        return torch.tensor(extremes.rows(), dtype=torch.int64)

    @override
    def to(self, device: torch.device | str) -> Self:
        self.columns = {name: column.to(device) for name, column in self.columns.items()}
        return self


class Extremes:
    """Rows with the least and the largest whole number of each column.

    A label or token that is out of range is one of them.
    """

    def __init__(self) -> None:
        self.least: dict[str, tuple[int, int]] = {}  # of each column: the number and its row
        self.largest: dict[str, tuple[int, int]] = {}

    def see(self, name: str, column: Tensor, start: int = 0) -> None:
        """Look at some rows of a column, of which ``start`` is the number of the first."""
        if column.is_floating_point():
            return

        values = column.flatten(1) if column.ndim > 1 else column[:, None]
        low, low_row = values.amin(1).min(0)
        high, high_row = values.amax(1).max(0)
        if name not in self.least or low < self.least[name][0]:
            self.least[name] = (int(low), start + int(low_row))
        if name not in self.largest or high > self.largest[name][0]:
            self.largest[name] = (int(high), start + int(high_row))

    def rows(self) -> list[int]:
        """Their numbers, column by column."""
        rows = []
        for name, (_, row) in self.least.items():
            rows += [row, self.largest[name][1]]
        return rows


def joined(columns: Mapping[str, Tensor], names: Sequence[str]) -> Tensor:
    """Several columns side by side as features, ``(n, d)`` in the default float type.

    >>> joined({"a": torch.tensor([1, 2]), "b": torch.tensor([0.5, 0.25])}, ["a", "b"])
    tensor([[1.0000, 0.5000],
            [2.0000, 0.2500]])
    """
    parts = []
    for name in names:
        column = columns[name].to(torch.get_default_dtype())
        parts.append(column[:, None] if column.ndim == 1 else column.flatten(1))
    return torch.cat(parts, 1)


def _check(columns: Columns) -> None:
    lengths = {}
    for name, column in columns.items():
        if column.ndim == 0 or len(column) == 0:
            raise ValueError(
                f"data must have at least one row, got column {name!r} of shape "
                f"{tuple(column.shape)}."
            )
        lengths[name] = len(column)
        check_numbers(name, column)

    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name!r} {length}" for name, length in lengths.items())
        raise ValueError(f"columns of data must have as many rows, got: {listed}.")


def check_numbers(name: str, column: Tensor, start: int = 0) -> None:
    """Refuse what is no finite real number.

    Args:
        name: of the column.
        column: some of its rows, one after another.
        start: number of the first one.

    Raises:
        ValueError: names the row.
    """
    if column.is_complex():
        raise ValueError(f"column {name!r} of data must be real, got {column.dtype}.")

    if column.is_floating_point() and not column.isfinite().all():
        first = (~column.isfinite()).flatten().int().argmax()
        row = start + int(first) // column[0].numel()
        value = column.flatten()[first].item()
        raise ValueError(
            f"column {name!r} of data must hold finite numbers, got {value} in row {row}."
        )
