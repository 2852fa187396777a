"""Any network on any labelled data."""

from collections.abc import Callable
from typing import Any, Self

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from tasks.base import Batch, Params, TaskParams
from tasks.data.images import LabelledImages
from tasks.networks.base import Network
from tasks.networks.task import NetworkTask, shuffled


class Classification(NetworkTask):
    """Cross-entropy of a network on labelled images, batches drawn with replacement.

    Args:
        name: name of the task in reports.
        network: constructor ``(input_shape, num_outputs) -> Network``.
        data: labelled images, held in memory.
        batch_size: examples in a batch.
        valid_fraction: share of the training data that is kept for ``valid``, drawn at random, the same in every run.

    Raises:
        ValueError: the batch size is not positive, or the share leaves nothing to one of the splits.
    """

    def __init__(
        self,
        name: str,
        network: Callable[..., Network],
        data: LabelledImages,
        batch_size: int = 128,
        valid_fraction: float = 0.0,
    ) -> None:
        inner, num_rows = network(data.input_shape, data.num_classes), len(data.train_labels)
        super().__init__(name, inner, batch_size, num_rows, valid_fraction)
        self.num_classes, self.data_name, self.fingerprint = data.num_classes, data.name, data.fingerprint
        train = (data.train_images, data.train_labels)
        self.train = shuffled(train) if self.num_valid else train
        self.test = (data.test_images, data.test_labels)

    def batch(self, generator: torch.Generator, task: TaskParams, split: str = "train") -> Batch:
        """Indices ``(batch_size,)`` into the training data."""
        return {"index": self.draw_rows(generator, split)}

    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        """Mean cross-entropy over the batch, in nats."""
        images, labels = self.train
        outputs = functional_call(self.network, params, (images[batch["index"]],))
        return functional.cross_entropy(outputs, labels[batch["index"]])

    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        """Accuracy (share of right classes) and loss (nats) on the held-out data."""
        images, labels = self.test
        outputs = functional_call(self.network, params, (images,))
        accuracy = (outputs.argmax(-1) == labels).float().mean()
        return {"accuracy": accuracy, "test_loss": functional.cross_entropy(outputs, labels)}

    def to(self, device: torch.device | str) -> Self:
        """Move network and data."""
        self.network = self.network.to(device)
        self.train = tuple(tensor.to(device) for tensor in self.train)
        self.test = tuple(tensor.to(device) for tensor in self.test)
        return self

    def describe(self) -> dict[str, Any]:
        """Network, data and batch size."""
        return {
            "task": self.name,
            "network": type(self.network).__name__,
            "data": self.data_name,
            "input_shape": list(self.train[0].shape[1:]),
            **self.describe_splits(),
            "num_test": len(self.test[1]),
            "batch_size": self.batch_size,
            "fingerprint": self.fingerprint,
        }
