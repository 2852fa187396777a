"""What the tasks of one network on one data set share."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

from tasks.base import Batch, Params, PermutationAxes, TaskFamily, TaskParams
from tasks.networks.base import Network

Tensors = tuple[Tensor, ...]


class NetworkTask(TaskFamily):
    """A family of one task, whose parameters are a network's.

    Args:
        name: name of the task in reports.
        network: the inner network.
        data: names the data in reports, its ``fingerprint`` among the names.
        train: tensors of the training data, one row for each example, the last of which are kept for ``valid``.
        test: tensors of the held-out data.
        batch_size: examples in a batch.
        valid_fraction: share that is kept; 0 for none, and then there is no split ``valid``.

    Raises:
        ValueError: the batch size is not positive, or the share leaves nothing to one of the splits.
    """

    def __init__(
        self,
        name: str,
        network: Network,
        data: Mapping[str, Any],
        train: Tensors,
        test: Tensors,
        batch_size: int,
        valid_fraction: float,
    ) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.name, self.network, self.data, self.batch_size = name, network, data, batch_size
        self.train, self.test = train, test
        self.num_train, self.num_valid = split_sizes(len(train[0]), valid_fraction)
        self.splits = ("train", "valid") if self.num_valid else ("train",)

    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        """Indices ``(batch_size,)`` into the training data."""
        return {"index": self.draw_rows(generator, split)}

    def draw_rows(self, generator: torch.Generator, split: str, margin: int = 0) -> Tensor:
        """A batch of places in the training data, ``(batch_size,)``, with replacement; none in the split's margin."""
        low, high = {
            "train": (0, self.num_train),
            "valid": (self.num_train, self.num_train + self.num_valid),
        }[split]
        return torch.randint(low, high - margin, (self.batch_size,), generator=generator)

    def sample(self, generator: torch.Generator) -> TaskParams:
        """One task only."""
        return {}

    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        """The network's initial parameters."""
        return self.network.init(generator)

    def to(self, device: torch.device | str) -> Self:
        """Move network and data."""
        self.network = self.network.to(device)
        self.train = tuple(tensor.to(device) for tensor in self.train)
        self.test = tuple(tensor.to(device) for tensor in self.test)
        return self

    def describe(self) -> dict[str, Any]:
        """Network, data and sizes."""
        return {
            "task": self.name,
            "network": type(self.network).__name__,
            "num_train": self.num_train,
            **({"num_valid": self.num_valid} if self.num_valid else {}),
            "num_test": len(self.test[0]),
            "batch_size": self.batch_size,
            **self.data,
        }

    def rows(self, split: str) -> Tensor:
        """All tensors of an example, side by side."""
        tensors = {"train": self.train, "test": self.test}[split]
        return torch.cat(
            [tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None] for tensor in tensors], 1
        )

    def permutation_axes(self) -> PermutationAxes | None:
        """The network's."""
        return self.network.permutation_axes()


def split_sizes(num_rows: int, valid_fraction: float) -> tuple[int, int]:
    """How many rows are trained on and how many are kept for ``valid``.

    Raises:
        ValueError: the share is out of its range, or leaves nothing to one of them.
    """
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"valid_fraction must be at least 0 and below 1, got {valid_fraction}.")
    num_valid = round(num_rows * valid_fraction)
    if num_valid == num_rows or (valid_fraction > 0 and num_valid == 0):
        raise ValueError(
            f"valid_fraction {valid_fraction} leaves {num_valid} of {num_rows} rows for validation."
        )
    return num_rows - num_valid, num_valid


def shuffled(tensors: Tensors) -> Tensors:
    """The rows of all tensors in one random order, the same in every run: data may come sorted."""
    order = torch.randperm(len(tensors[0]), generator=torch.Generator().manual_seed(0))
    return tuple(tensor[order] for tensor in tensors)
