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
from tasks.networks.task import NetworkTask


class Classification(NetworkTask):
    """Cross-entropy of a network on labelled images, batches drawn with replacement.

    Args:
        name: name of the task in reports.
        network: constructor ``(input_shape, num_outputs) -> Network``.
        data: labelled images, held in memory.
        batch_size: examples in a batch.

    Raises:
        ValueError: the batch size is not positive.
    """

    def __init__(self, name: str, network: Callable[..., Network], data: LabelledImages, batch_size: int = 128) -> None:
        super().__init__(name, network(data.input_shape, data.num_classes), batch_size)
        self.num_classes, self.data_name, self.fingerprint = data.num_classes, data.name, data.fingerprint
        self.train = (data.train_images, data.train_labels)
        self.test = (data.test_images, data.test_labels)

    def batch(self, generator: torch.Generator, task: TaskParams) -> Batch:
        """Indices ``(batch_size,)`` into the training data."""
        return {"index": torch.randint(len(self.train[1]), (self.batch_size,), generator=generator)}

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
            "num_train": len(self.train[1]),
            "num_test": len(self.test[1]),
            "batch_size": self.batch_size,
            "fingerprint": self.fingerprint,
        }
