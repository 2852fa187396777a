"""Small convolutional network for images."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.base import PermutationAxes
from tasks.networks.base import Network, check_each_size, image_sizes

POOLS = ("mean", "flatten")


class CNN(Network):
    """Convolutions with ReLU, then pooling or flattening, then one linear layer.

    Args:
        input_shape: ``(channels, height, width)``.
        num_outputs: outputs, e.g. classes.
        channels: output channels of the convolutions.
        strides: stride of each convolution.
        kernel_size: height and width of the kernels; padding keeps the size at stride 1.
        norm: put a layer norm over channels and positions, with scale and shift per channel,
            after each convolution.
        pool: ``mean`` over the positions, or ``flatten``, which gives every position its own
            weights.
        layer: constructor ``(inputs, outputs, kernel_size, stride, padding)`` of a convolution.

    Raises:
        ValueError: a size or name is out of its range, or the inputs are no images.

    Source: the CNN task of Zhou et al. 2024 (arXiv 2402.05232): channels 16 and 32, strides 2
    and 1, mean pooling.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        channels: Sequence[int] = (16, 32),
        strides: Sequence[int] = (2, 1),
        kernel_size: int = 3,
        norm: bool = False,
        pool: str = "mean",
        layer: Callable[[int, int, int, int, int], nn.Module] = nn.Conv2d,
    ) -> None:
        super().__init__()
        inputs, height, width = image_sizes("a CNN", input_shape)
        _check(channels, strides, kernel_size, pool)

        self.convs = nn.ModuleList()
        for outputs, stride in zip(channels, strides, strict=True):
            self.convs.append(layer(inputs, outputs, kernel_size, stride, kernel_size // 2))
            inputs = outputs
            # with this padding a convolution halves an image to the next whole number
            height = -(-height // stride)
            width = -(-width // stride)
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in channels) if norm else None

        self.pool = pool
        self.positions = (height, width)
        if pool == "mean":
            self.head: nn.Module = nn.Linear(channels[-1], num_outputs)
        else:
            self.head = PositionwiseLinear(channels[-1], self.positions, num_outputs)

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        hidden = inputs  # (B, channels, height, width), also after each convolution
        for i, conv in enumerate(self.convs):
            hidden = conv(hidden)
            if self.norms is not None:
                hidden = self.norms[i](hidden)
            hidden = hidden.relu()

        if self.pool == "mean":
            hidden = hidden.mean((-2, -1))  # (B, channels)
        return self.head(hidden)

    @override
    def permutation_axes(self) -> PermutationAxes | None:
        # layers of another class have parameters that only a trace can name
        if not all(isinstance(conv, nn.Conv2d) for conv in self.convs):
            return None

        channels = ["input", *(f"channel{i}" for i in range(len(self.convs)))]
        axes: dict[str, tuple[str, ...]] = {}
        for i in range(len(self.convs)):
            axes[f"convs.{i}.weight"] = (channels[i + 1], channels[i], f"row{i}", f"column{i}")
            axes[f"convs.{i}.bias"] = (channels[i + 1],)
        for i in range(len(self.norms or ())):
            axes[f"norms.{i}.weight"] = (channels[i + 1],)
            axes[f"norms.{i}.bias"] = (channels[i + 1],)

        positions = () if self.pool == "mean" else ("image_row", "image_column")
        axes["head.weight"] = ("output", channels[-1], *positions)
        axes["head.bias"] = ("output",)

        names = {name for axis_names in axes.values() for name in axis_names}
        return axes, frozenset(names - set(channels[1:]))


class PositionwiseLinear(nn.Module):
    """Flatten and linear in one, whose weight keeps channels and positions on axes of their own.

    Args:
        channels: input channels.
        positions: height and width of the input.
        num_outputs: outputs.
    """

    def __init__(self, channels: int, positions: tuple[int, int], num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(num_outputs, channels, *positions))
        self.bias = nn.Parameter(torch.zeros(num_outputs))
        nn.init.kaiming_uniform_(self.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, channels, height, width) -> (B, num_outputs)``."""
        return nn.functional.linear(inputs.flatten(1), self.weight.flatten(1), self.bias)


def _check(channels: Sequence[int], strides: Sequence[int], kernel_size: int, pool: str) -> None:
    if not channels or len(channels) != len(strides):
        raise ValueError(
            f"channels and strides must be of one length, got {len(channels)} and {len(strides)}."
        )
    check_each_size("channels", channels)
    check_each_size("strides", strides)

    if kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"kernel_size must be odd and positive, got {kernel_size}.")
    if pool not in POOLS:
        raise ValueError(f"pool must be 'mean' or 'flatten', got {pool!r}.")
