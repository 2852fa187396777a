"""Images without their classes: autoencoders, contrastive pairs, and what else needs no label."""

from collections.abc import Callable
from functools import partial

from torch import nn

from tasks.data.images import LabelledImages
from tasks.module import ModuleTask
from tasks.module_data import InMemory
from tasks.module_losses import Figures, Loss
from tasks.networks.initialised import initialised


def unsupervised(
    name: str,
    network: Callable[..., nn.Module],
    data: LabelledImages,
    loss: Loss,
    figures: Figures | None = None,
    batch_size: int = 128,
    eval_batch_size: int = 1024,
    valid_fraction: float = 0.0,
) -> ModuleTask:
    """A network on images alone; noise that it draws is keyed, see ``ModuleTask``.

    Args:
        name: of the task in reports.
        network: constructor ``(input_shape) -> nn.Module``; the module reads images
            ``(B, channels, height, width)`` in [0, 1].
        data: labelled images, whose labels are left out.
        loss: ``(outputs, images) -> scalar``; outputs are whatever the network returns.
        figures: further held-out figures by name, of the same arguments.
        batch_size: images in a batch, drawn with replacement.
        eval_batch_size: held-out images that go through the network at once.
        valid_fraction: share of the training images that is kept for ``valid``.

    Raises:
        ValueError: see ``ModuleTask``.

    >>> from tasks.data.embedded import digits
    >>> from tasks.networks.autoencoder import Autoencoder
    >>> unsupervised("codes", Autoencoder, digits(), nn.MSELoss()).describe()["num_train"]
    1437
    """
    return ModuleTask(
        partial(initialised, network, data.input_shape),
        loss,
        InMemory(data.name, {"0": data.train_images}),
        test=InMemory(data.name, {"0": data.test_images}),
        figures=figures or {},
        batch_size=batch_size,
        eval_batch_size=eval_batch_size,
        valid_fraction=valid_fraction,
        name=name,
    )
