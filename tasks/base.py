"""The contract of a task family: a distribution of inner training problems."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor

Params = dict[str, Tensor]
Batch = dict[str, Tensor]
TaskParams = dict[
    str, Any
]  # nested dicts of tensors: what tells one task of the family from another; {} when there is only one
PermutationAxes = tuple[
    Mapping[str, tuple[str, ...]], frozenset[str]
]  # axis names per parameter, fixed names


class TaskFamily(ABC):
    """Inner problems that ``torch.func.vmap`` can run side by side.

    All randomness comes from CPU generators that the caller seeds; every method is pure.

    Batches come in splits. Inner training runs on those of ``train``. Meta-training may take its losses on those of
    ``valid``: data that are neither trained on nor part of what ``evaluate`` reports on.
    """

    name: str
    splits: tuple[str, ...] = ("train",)  # that ``batch`` knows

    @abstractmethod
    def sample(self, generator: torch.Generator) -> TaskParams:
        """Draw one task; ``{}`` for a family of one."""

    @abstractmethod
    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        """Draw initial parameters."""

    @abstractmethod
    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        """Draw one batch of a split; data that lies on the device is named by index."""

    @abstractmethod
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        """Scalar loss on a batch; vmap, grad and compile go through it."""

    @abstractmethod
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        """Scalar figures on held-out data, e.g. ``accuracy``; ``{}`` when the task has none."""

    @abstractmethod
    def permutation_axes(self) -> PermutationAxes | None:
        """Permutation name of every axis of every parameter, and the names that are fixed; None to infer them."""

    @abstractmethod
    def to(self, device: torch.device | str) -> Self:
        """Move the data to a device, in place."""

    def rows(self, split: str) -> Tensor | None:
        """Examples of ``train`` (with those kept for ``valid``) or ``test``, ``(n, d)``; None if endless."""
        return None

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """What identifies the task in reports: network, data, fingerprint, batch size."""
