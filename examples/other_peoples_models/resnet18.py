"""A ResNet-18 with batch norm, a quarter as wide as the original.

The layers are those of torchvision, in the version of Hugging Face's transformers.
"""

from functools import partial

from torch.nn.functional import cross_entropy
from transformers import ResNetConfig, ResNetForImageClassification

from examples.other_peoples_models.data import labelled_images
from tasks import ModuleTask


def make_task(root: str | None = None) -> ModuleTask:
    """Classification of images.

    Args:
        root: folder of real data, see ``data``.
    """
    images = labelled_images(root)
    config = ResNetConfig(
        num_channels=images.train_images.shape[1],
        embedding_size=16,
        hidden_sizes=[16, 32, 64, 128],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        num_labels=10,
    )
    module = partial(ResNetForImageClassification, config)
    return ModuleTask(
        module, cross_entropy, images, output="logits", batch_size=16, name="resnet18"
    )
