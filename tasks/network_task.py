"""The base of families of one task: one network trained on one data set."""

from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.base import Batch, Params, PermutationAxes, TaskFamily, TaskParams
from tasks.networks.base import Network, check_sizes
from tasks.networks.purity import check_network

Tensors = tuple[Tensor, ...]


class NetworkTask(TaskFamily):
    """A family of one task, whose parameters are those of a network.

    Families below it add ``loss`` and ``evaluate``; batches are indices into the training data,
    which ``loss`` looks up, so that no data crosses to the device inside of the inner loop.

    Args:
        name: name of the task in reports.
        network: the inner network.
        data: names the data in reports, its ``fingerprint`` among the names.
        train: tensors of the training data, one row for each example; the last rows are kept for
            the split ``valid``.
        test: tensors of the held-out data.
        batch_size: examples in a batch.
        valid_fraction: share of the training data that is kept; 0 for none, and then there is no
            split ``valid``.

    Raises:
        ValueError: the batch size is not positive, the network is not pure, or the share leaves
            nothing to one of the splits.
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
        check_sizes(batch_size=batch_size)
        check_network(network)
        self.name = name
        self.network = network
        self.data = data
        self.train = train
        self.test = test
        self.batch_size = batch_size

        self.num_train, self.num_valid = split_sizes(len(train[0]), valid_fraction)
        self.splits = ("train", "valid") if self.num_valid else ("train",)

    @override
    def sample(self, generator: torch.Generator) -> TaskParams:
        return {}

    @override
    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        return self.network.init(generator)

    @override
    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        return {"index": self.draw_rows(generator, split)}

    @override
    def batches(
        self, generator: torch.Generator, task: TaskParams, num: int, split: str = "train"
    ) -> Batch:
        if type(self).batch is not NetworkTask.batch:  # a family below it draws in its way
            return super().batches(generator, task, num, split)
        # integers come one by one out of a generator, however many are asked for
        rows = self.draw_rows(generator, split, num_batches=num)
        return {"index": rows.unflatten(0, (num, self.batch_size))}

    def draw_rows(
        self, generator: torch.Generator, split: str, margin: int = 0, num_batches: int = 1
    ) -> Tensor:
        """Draw rows of the training data with replacement.

        Args:
            generator: CPU generator.
            split: ``train`` or ``valid``.
            margin: how many rows at the end of the split are never drawn.
            num_batches: that are drawn, one behind the other.

        Returns:
            Tensor: indices ``(num_batches * batch_size,)``.
        """
        low, high = split_bounds(split, self.num_train, self.num_valid)
        size = num_batches * self.batch_size
        return torch.randint(low, high - margin, (size,), generator=generator)

    @override
    def to(self, device: torch.device | str) -> Self:
        self.network = self.network.to(device)
        self.train = tuple(tensor.to(device) for tensor in self.train)
        self.test = tuple(tensor.to(device) for tensor in self.test)
        return self

    @override
    def describe(self) -> dict[str, Any]:
        facts = facts_of_network(self.name, self.network, self.num_train, self.num_valid)
        facts |= {"num_test": len(self.test[0]), "batch_size": self.batch_size}
        return {**facts, **self.data}

    @override
    def rows(self, split: str) -> Tensor:
        tensors = {"train": self.train, "test": self.test}[split]

        columns = []
        for tensor in tensors:
            columns.append(tensor.flatten(1) if tensor.ndim > 1 else tensor[:, None])  # (rows, n)
        return torch.cat(columns, 1)

    @override
    def permutation_axes(self) -> PermutationAxes | None:
        return self.network.permutation_axes()


def split_sizes(num_rows: int, valid_fraction: float) -> tuple[int, int]:
    """How many rows are trained on and how many are kept for ``valid``.

    Raises:
        ValueError: the share is out of its range, or leaves nothing to one of them.

    >>> split_sizes(100, 0.2)
    (80, 20)
    """
    if not 0 <= valid_fraction < 1:
        raise ValueError(f"valid_fraction must be at least 0 and below 1, got {valid_fraction}.")

    num_valid = round(num_rows * valid_fraction)
    nothing_kept = valid_fraction > 0 and num_valid == 0
    if num_valid == num_rows or nothing_kept:
        raise ValueError(
            f"valid_fraction {valid_fraction} leaves {num_valid} of {num_rows} rows for validation."
        )
    return num_rows - num_valid, num_valid


def split_bounds(split: str, num_train: int, num_valid: int) -> tuple[int, int]:
    """The first row of a split, and the first behind it; rows of ``valid`` are the last.

    >>> split_bounds("valid", 80, 20)
    (80, 100)
    """
    return {"train": (0, num_train), "valid": (num_train, num_train + num_valid)}[split]


def facts_of_network(
    name: str, network: nn.Module, num_train: int, num_valid: int
) -> dict[str, Any]:
    """How a description begins, of a task of one network on one data set.

    Args:
        name: of the task.
        network: the inner network.
        num_train: rows that are trained on.
        num_valid: rows that are kept; where there are none, nothing is said of them.
    """
    facts = {"task": name, "network": type(network).__name__, "num_train": num_train}
    return facts | ({"num_valid": num_valid} if num_valid else {})


def shuffled(tensors: Tensors) -> Tensors:
    """The rows of all tensors in one random order, the same in every run: data may come sorted."""
    order = torch.randperm(len(tensors[0]), generator=torch.Generator().manual_seed(0))
    return tuple(tensor[order] for tensor in tensors)
