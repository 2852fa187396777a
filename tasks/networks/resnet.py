"""Small residual convolutional network."""

from collections.abc import Sequence

from torch import Tensor, nn

from tasks.networks.base import Network, check_sizes


class ResNet(Network):
    """Stem, stages of pre-norm residual blocks (group norm, ReLU, 3x3), mean pooling, linear head.

    Args:
        input_shape: ``(channels, height, width)``.
        num_outputs: outputs, e.g. classes.
        channels: channels of the stages; every stage after the first halves the image.
        blocks_per_stage: residual blocks in a stage.
        groups: groups of the group norms.
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
        if len(input_shape) != 3:
            raise ValueError(
                f"a ResNet needs inputs (channels, height, width), got the shape {tuple(input_shape)}."
            )
        check_sizes(num_outputs=num_outputs, blocks_per_stage=blocks_per_stage, groups=groups)
        if not channels or any(size < 1 or size % groups for size in channels):
            raise ValueError(
                f"channels must be multiples of groups {groups}, got {list(channels)}."
            )
        self.stem = nn.Conv2d(input_shape[0], channels[0], 3, padding=1)
        self.stages = nn.ModuleList()
        previous = channels[0]
        for stage, size in enumerate(channels):
            first = Block(previous, size, 2 if stage else 1, groups)
            self.stages.append(
                nn.Sequential(
                    first, *(Block(size, size, 1, groups) for _ in range(blocks_per_stage - 1))
                )
            )
            previous = size
        self.norm, self.head = nn.GroupNorm(groups, previous), nn.Linear(previous, num_outputs)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, channels, height, width) -> (B, num_outputs)``."""
        stream = self.stem(inputs)
        for stage in self.stages:
            stream = stage(stream)
        return self.head(self.norm(stream).relu().mean((-2, -1)))


class Block(nn.Module):
    """``shortcut(x) + conv(relu(norm(conv(relu(norm(x))))))``; the shortcut is 1x1 where the shape changes.

    Args:
        inputs: channels in.
        outputs: channels out.
        stride: stride of the first convolution and of the shortcut.
        groups: groups of the group norms.
    """

    def __init__(self, inputs: int, outputs: int, stride: int, groups: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.GroupNorm(groups, inputs), nn.GroupNorm(groups, outputs)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        changes = inputs != outputs or stride != 1
        self.shortcut = (
            nn.Conv2d(inputs, outputs, 1, stride, bias=False) if changes else nn.Identity()
        )

    def forward(self, stream: Tensor) -> Tensor:
        """``(B, inputs, height, width) -> (B, outputs, height / stride, width / stride)``."""
        hidden = self.conv1(self.norm1(stream).relu())
        return self.shortcut(stream) + self.conv2(self.norm2(hidden).relu())
