"""Which rows of which data are trained on, and which are held out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tasks.module_data import Columns, DataSource, InMemory
from tasks.module_disk import OnDisk
from tasks.module_memory import AUTO
from tasks.module_reading import TEST, read
from tasks.module_roles import Roles

TEST_FRACTION = 0.2  # where nobody says what is held out


@dataclass(frozen=True)
class Split:
    """Some rows of a source.

    Args:
        source: the data.
        rows: their numbers, ``(n,)`` int64, on the CPU.
    """

    source: DataSource
    rows: Tensor

    def gather(self, rows: Tensor) -> Columns:
        """The columns of rows of the source."""
        return self.source.gather(self.source.draw(rows))

    def shuffled(self) -> "Split":
        """The same rows in a random order, the same in every run."""
        return Split(self.source, self.rows[_order(len(self.rows))])

    def spread(self, num_batches: int, batch_size: int, num_rows: int) -> Sequence[Tensor]:
        """Rows of batches that are spread evenly over the first ``num_rows`` rows."""
        count = max(1, min(num_batches, num_rows // batch_size)) * min(batch_size, num_rows)
        positions = torch.arange(count) * num_rows // count
        return self.rows[positions].split(min(batch_size, num_rows))

    def telling(self, batch_size: int) -> list[Tensor]:
        """Batches of rows that show what is wrong, filled up to full batches."""
        mine = set(self.rows.tolist())
        rows = [row for row in self.source.telling_rows().tolist() if row in mine]
        num_batches = max(1, -(-len(rows) // batch_size))

        # rows of any other number will do
        positions = torch.arange(num_batches * batch_size - len(rows)) % len(self.rows)
        filled = torch.cat([torch.tensor(rows, dtype=torch.int64), self.rows[positions]])
        return list(filled.split(batch_size))


def train_and_test(
    data: Any,
    test: Any,
    test_fraction: float | None,
    roles: Roles,
    is_supervised: bool,
    in_memory: bool | str = AUTO,
) -> tuple[Split, Split]:
    """Read the data and say which rows are held out.

    Args:
        data: see ``ModuleTask``.
        test: see ``ModuleTask``.
        test_fraction: see ``ModuleTask``.
        roles: of the columns.
        is_supervised: whether the columns are inputs and targets; else all go to the loss.
        in_memory: see ``ModuleTask``.

    Raises:
        ValueError: there are no data, more than one part is held out, or the share leaves nothing
            to one of the parts.
    """
    if data is None:
        raise ValueError("data must be there: tensors, a data set, or the path of a file.")
    if test is not None and test_fraction is not None:
        raise ValueError("give one of test and test_fraction, got both.")

    sources = _read(data, roles, is_supervised, in_memory)
    train = sources["train"]
    if test is not None:
        sources[TEST] = _read(test, roles, is_supervised, in_memory)["train"]
    if TEST in sources and test_fraction is None:
        _check_alike(train, sources[TEST])
        return _all_rows(train), _all_rows(sources[TEST])

    share = TEST_FRACTION if test_fraction is None else test_fraction
    num_test = round(share * len(train)) if 0 < share < 1 else 0
    if not 0 < num_test < len(train):
        raise ValueError(
            f"test_fraction must lie between 0 and 1 and leave rows on both sides, got {share} of "
            f"{len(train)} rows."
        )
    order = _order(len(train))
    return Split(train, order[num_test:].sort().values), Split(train, order[:num_test])


def _read(
    data: Any, roles: Roles, is_supervised: bool, in_memory: bool | str
) -> dict[str, DataSource]:
    sources = read(data, roles.names, in_memory)
    if not is_supervised or isinstance(data, DataSource):
        return sources

    prepared: dict[str, DataSource] = {}
    for split, source in sources.items():
        prepared[split] = source
        if isinstance(source, InMemory):
            prepared[split] = InMemory(source.name, roles.prepare(source.columns))
        elif isinstance(source, OnDisk):
            source.prepare = roles.prepare
    return prepared


def _all_rows(source: DataSource) -> Split:
    return Split(source, torch.arange(len(source)))


def _check_alike(train: DataSource, test: DataSource) -> None:
    """Held-out rows must have the columns of the training data."""
    first = _layout(train)
    second = _layout(test)
    if first != second:
        raise ValueError(
            f"test must have the columns of the training data, which are {first}, got {second}."
        )


def _layout(source: DataSource) -> str:
    columns = source.gather(source.draw(torch.zeros(1, dtype=torch.int64)))
    texts = []
    for name, column in columns.items():
        texts.append(f"{name} {tuple(column.shape[1:])} {column.dtype}")
    return ", ".join(texts)


def _order(num_rows: int) -> Tensor:
    """A random order, the same in every run."""
    return torch.randperm(num_rows, generator=torch.Generator().manual_seed(0))
