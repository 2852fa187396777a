"""The contract of a task family: a distribution of inner training problems."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor
from typing_extensions import override

Params = dict[str, Tensor]
Batch = dict[str, Tensor]

# nested dicts of tensors: what tells one task of the family from another; {} when there is only one
TaskParams = dict[str, Any]

# axis names of every parameter, and the names whose axes are fixed
PermutationAxes = tuple[Mapping[str, tuple[str, ...]], frozenset[str]]


class TaskFamily(ABC):
    """Inner problems that ``torch.func.vmap`` can run side by side.

    Four methods make a family: ``sample``, ``init``, ``batch`` and ``loss``. All others have
    defaults that suit a family without data of its own. All randomness comes from CPU
    generators that the caller seeds, and every method is pure: it changes nothing and returns
    the same for the same arguments.

    Batches come in splits. Inner training runs on those of ``train``. Meta-training may take
    its losses on those of ``valid``: data that are neither trained on nor part of what
    ``evaluate`` reports on.

    Attributes:
        name: what reports call the task.
        splits: the splits that ``batch`` knows.

    >>> class Bowl(TaskFamily):
    ...     def sample(self, generator):
    ...         return {}
    ...     def init(self, generator, task):
    ...         return {"x": torch.randn(3, generator=generator)}
    ...     def batch(self, generator, task, split="train"):
    ...         return {}
    ...     def loss(self, params, batch, task):
    ...         return params["x"].square().sum()
    >>> Bowl().describe()
    {'task': 'task'}
    """

    name: str = "task"
    splits: tuple[str, ...] = ("train",)

    @abstractmethod
    def sample(self, generator: torch.Generator) -> TaskParams:
        """Draw one task; a family of one returns ``{}``.

        Args:
            generator: CPU generator.
        """

    @abstractmethod
    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        """Draw initial parameters for a task.

        Args:
            generator: CPU generator.
            task: what ``sample`` returned.

        Returns:
            Params: tensors on the CPU by name, in an order that never changes.
        """

    @abstractmethod
    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        """Draw one batch of a split; data that lies on the device is named by index.

        Args:
            generator: CPU generator.
            task: what ``sample`` returned.
            split: one of ``splits``.

        Returns:
            Batch: tensors on the CPU by name; their shapes are the same for every batch.
        """

    def batches(
        self, generator: torch.Generator, task: TaskParams, num: int, split: str = "train"
    ) -> Batch:
        """Draw the batches of several inner steps.

        By default by as many calls of ``batch``; what a family draws at once must be the same.

        Args:
            generator: CPU generator.
            task: what ``sample`` returned.
            num: of the batches.
            split: one of ``splits``.

        Returns:
            Batch: those of ``batch`` with ``num`` as their first axis.
        """
        drawn = [self.batch(generator, task, split) for _ in range(num)]
        joined = {}
        for name in drawn[0]:
            joined[name] = torch.stack([batch[name] for batch in drawn])
        return joined

    @abstractmethod
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        """The loss on a batch; vmap, grad and compile go through it.

        Args:
            params: as ``init`` returns them.
            batch: as ``batch`` returns it.
            task: as ``sample`` returns it.

        Returns:
            Tensor: a scalar of shape ``()``.
        """

    def without_noise(self, batch: Batch) -> Batch:
        """The batch that draws nothing in ``loss``, on which symmetries of the loss are proved.

        Dropout tells hidden units apart in every single batch, but not on average. By default
        the batch itself.
        """
        return batch

    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        """Scalar figures on held-out data, e.g. ``accuracy``; by default there are none."""
        return {}

    def update_multipliers(self, scale: str) -> Mapping[str, float]:
        """What the update of each parameter is multiplied with; by default nothing is.

        A parametrisation whose training shall not depend on the width says so here.

        Args:
            scale: what the updates of the optimizer scale with already: ``entry``, ``parameter``,
                ``gradient`` and others.
        """
        return {}

    def permutation_axes(self) -> PermutationAxes | None:
        """Name of every axis of every parameter, and the fixed names.

        By default None: they are inferred from the loss.
        """
        return None

    def describe(self) -> dict[str, Any]:
        """What identifies the task in reports: network, data, fingerprint; by default its name."""
        return {"task": self.name}

    def rows(self, split: str) -> Tensor | None:
        """Examples of ``train`` (with those kept for ``valid``) or ``test``, ``(n, d)``.

        By default None, for a family whose examples are drawn without end.
        """
        return None

    def to(self, device: torch.device | str) -> Self:
        """Move the data to a device, in place; by default there is nothing to move."""
        return self


class WrappedFamily(TaskFamily):
    """The problems of another family in other coordinates of its parameters.

    Everything is asked of the family inside. What a subclass changes are the parameters that the
    family reads, ``effective``, their start, ``init``, and what a task holds beside that of the
    family, ``sample`` and ``inner_task``.

    Args:
        family: the problems.
    """

    def __init__(self, family: TaskFamily) -> None:
        self.family = family
        self.name = family.name
        self.splits = family.splits

    def effective(self, params: Params, task: TaskParams) -> Params:
        """The parameters that the family inside reads; by default the same."""
        return params

    def inner_task(self, task: TaskParams) -> TaskParams:
        """The task of the family inside; by default the same."""
        return task

    @override
    def sample(self, generator: torch.Generator) -> TaskParams:
        return self.family.sample(generator)

    @override
    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        return self.family.init(generator, self.inner_task(task))

    @override
    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        return self.family.batch(generator, self.inner_task(task), split)

    @override
    def batches(
        self, generator: torch.Generator, task: TaskParams, num: int, split: str = "train"
    ) -> Batch:
        return self.family.batches(generator, self.inner_task(task), num, split)

    @override
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        return self.family.loss(self.effective(params, task), batch, self.inner_task(task))

    @override
    def without_noise(self, batch: Batch) -> Batch:
        return self.family.without_noise(batch)

    @override
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        return self.family.evaluate(self.effective(params, task), self.inner_task(task))

    @override
    def update_multipliers(self, scale: str) -> Mapping[str, float]:
        return self.family.update_multipliers(scale)

    @override
    def permutation_axes(self) -> PermutationAxes | None:
        return self.family.permutation_axes()

    @override
    def describe(self) -> dict[str, Any]:
        return self.family.describe()

    @override
    def rows(self, split: str) -> Tensor | None:
        return self.family.rows(split)

    @override
    def to(self, device: torch.device | str) -> Self:
        self.family = self.family.to(device)
        return self
