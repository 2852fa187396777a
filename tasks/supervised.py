"""Classification: any network on any labelled data."""

from collections.abc import Callable

from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from typing_extensions import override

from tasks.base import Batch, Params, TaskParams
from tasks.data.images import LabelledImages
from tasks.network_task import NetworkTask, shuffled
from tasks.networks.base import Network


class Classification(NetworkTask):
    """Cross-entropy of a network on labelled images, batches drawn with replacement.

    Args:
        name: name of the task in reports.
        network: constructor ``(input_shape, num_outputs) -> Network``.
        data: labelled images, held in memory.
        batch_size: examples in a batch.
        valid_fraction: share of the training data that is kept for ``valid``, drawn at random,
            the same in every run.

    Raises:
        ValueError: the batch size is not positive, or the share leaves nothing to one of the
            splits.
    """

    def __init__(
        self,
        name: str,
        network: Callable[..., Network],
        data: LabelledImages,
        batch_size: int = 128,
        valid_fraction: float = 0.0,
    ) -> None:
        facts = {
            "data": data.name,
            "input_shape": list(data.input_shape),
            "fingerprint": data.fingerprint,
        }
        super().__init__(
            name,
            network(data.input_shape, data.num_classes),
            facts,
            (data.train_images, data.train_labels),
            (data.test_images, data.test_labels),
            batch_size,
            valid_fraction,
        )
        if self.num_valid:  # data may come sorted
            self.train = shuffled(self.train)

    @override
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        images, labels = self.train
        outputs = functional_call(self.network, params, (images[batch["index"]],))  # (B, classes)
        return functional.cross_entropy(outputs, labels[batch["index"]])  # nats

    @override
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        images, labels = self.test
        outputs = functional_call(self.network, params, (images,))  # (n, classes)
        accuracy = (outputs.argmax(-1) == labels).float().mean()
        return {"accuracy": accuracy, "test_loss": functional.cross_entropy(outputs, labels)}
