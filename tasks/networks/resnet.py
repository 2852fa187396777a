"""Small residual convolutional network for images."""

from collections.abc import Sequence

from torch import Tensor, nn
from typing_extensions import override

from tasks.networks.base import Network, check_sizes, image_sizes


class ResNet(Network):
    """Stem, stages of pre-norm residual blocks, mean pooling, linear head.

    Args:
        input_shape: ``(channels, height, width)``.
        num_outputs: outputs, e.g. classes.
        channels: channels of the stages; every stage after the first halves the image.
        blocks_per_stage: residual blocks in a stage.
        groups: groups of the group norms.

    Raises:
        ValueError: a size is out of its range, or the inputs are no images.

    Source: pre-activation blocks of He et al. 2016 (arXiv 1603.05027), with group norms (Wu & He
    2018, arXiv 1803.08494), which know no batch.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        channels: Sequence[int] = (8, 16),
        blocks_per_stage: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__()
        image_channels, _, _ = image_sizes("a ResNet", input_shape)
        check_sizes(num_outputs=num_outputs, blocks_per_stage=blocks_per_stage, groups=groups)
        if not channels or any(size < 1 or size % groups for size in channels):
            raise ValueError(
                f"channels must be multiples of groups {groups}, got {list(channels)}."
            )

        self.stem = nn.Conv2d(image_channels, channels[0], 3, padding=1)
        self.stages = nn.ModuleList()
        inputs = channels[0]
        for stage, outputs in enumerate(channels):
            blocks = [Block(inputs, outputs, 2 if stage else 1, groups)]
            for _ in range(blocks_per_stage - 1):
                blocks.append(Block(outputs, outputs, 1, groups))
            self.stages.append(nn.Sequential(*blocks))
            inputs = outputs

        self.norm = nn.GroupNorm(groups, channels[-1])
        self.head = nn.Linear(channels[-1], num_outputs)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        stream = self.stem(inputs)  # (B, channels[0], height, width)
        for stage in self.stages:
            stream = stage(stream)

        pooled = self.norm(stream).relu().mean((-2, -1))  # (B, channels[-1])
        return self.head(pooled)


class Block(nn.Module):
    """``shortcut(x) + conv(relu(norm(conv(relu(norm(x))))))`` with 3x3 kernels.

    The shortcut is a 1x1 convolution where the shape changes, else the identity.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: stride of the first convolution and of the shortcut.
        groups: groups of the group norms.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(groups, inputs)
        self.norm2 = nn.GroupNorm(groups, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)

        if inputs != outputs or stride != 1:
            self.shortcut: nn.Module = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
        else:
            self.shortcut = nn.Identity()

    def forward(self, stream: Tensor) -> Tensor:
        """``(B, inputs, height, width) -> (B, outputs, height / stride, width / stride)``."""
        hidden = self.conv1(self.norm1(stream).relu())
        shortcut = self.shortcut(stream)
        return shortcut + self.conv2(self.norm2(hidden).relu())
