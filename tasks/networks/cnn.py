"""Small convolutional network."""

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from tasks.base import PermutationAxes
from tasks.networks.base import Network, check_sizes


class CNN(Network):
    """Convolutions with ReLU (and optional group norm), then global mean pooling or flattening, then one linear layer.

    Args:
        input_shape: ``(channels, height, width)``.
        num_outputs: outputs, e.g. classes.
        channels: output channels of the convolutions.
        strides: stride of each convolution.
        kernel_size: height and width of the kernels; padding keeps the size at stride 1.
        norm: put a layer norm over channels and positions, with scale and shift per channel, after each convolution.
        pool: ``mean`` over the positions or ``flatten``, which gives every position its own weights.
        layer: constructor ``(inputs, outputs, kernel_size, stride, padding)`` of a convolution.

    Source: the CNN task of Zhou et al. 2024 (arXiv 2402.05232): channels 16 and 32, strides 2 and 1, mean pooling.
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
        self._check(input_shape, channels, strides, kernel_size, pool)
        widths, (height, width) = [input_shape[0], *channels], input_shape[1:]
        pairs = zip(widths[:-1], widths[1:], strides, strict=True)
        self.convs = nn.ModuleList(
            layer(a, b, kernel_size, s, kernel_size // 2) for a, b, s in pairs
        )
        self.norms = nn.ModuleList(nn.GroupNorm(1, size) for size in channels) if norm else None
        self.pool = pool
        for stride in strides:
            height, width = -(-height // stride), -(-width // stride)
        self.positions = (height, width)
        if pool == "mean":
            self.head: nn.Module = nn.Linear(widths[-1], num_outputs)
        else:
            self.head = PositionwiseLinear(widths[-1], self.positions, num_outputs)

    @staticmethod
    def _check(
        input_shape: Sequence[int],
        channels: Sequence[int],
        strides: Sequence[int],
        size: int,
        pool: str,
    ) -> None:
        if len(input_shape) != 3:
            raise ValueError(
                f"a CNN needs inputs (channels, height, width), got the shape {tuple(input_shape)}."
            )
        if not channels or len(channels) != len(strides):
            raise ValueError(
                f"channels and strides must be of one length, got {len(channels)} and {len(strides)}."
            )
        check_sizes(**{f"channels[{i}]": c for i, c in enumerate(channels)})
        check_sizes(**{f"strides[{i}]": s for i, s in enumerate(strides)})
        if size < 1 or size % 2 == 0:
            raise ValueError(f"kernel_size must be odd and positive, got {size}.")
        if pool not in ("mean", "flatten"):
            raise ValueError(f"pool must be 'mean' or 'flatten', got {pool!r}.")

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, channels, height, width) -> (B, num_outputs)``."""
        hidden = inputs
        for i, conv in enumerate(self.convs):
            hidden = conv(hidden)
            if self.norms is not None:
                hidden = self.norms[i](hidden)
            hidden = hidden.relu()
        return self.head(hidden.mean((-2, -1)) if self.pool == "mean" else hidden)

    def permutation_axes(self) -> PermutationAxes | None:
        """Channels of a layer permute together; input channels, kernel and image positions and outputs are fixed.

        Inferred for layers that are not torch's convolutions.
        """
        if not all(isinstance(conv, nn.Conv2d) for conv in self.convs):
            return None
        names = ["input", *(f"channel{i}" for i in range(len(self.convs)))]
        axes: dict[str, tuple[str, ...]] = {}
        for i in range(len(self.convs)):
            axes[f"convs.{i}.weight"] = (names[i + 1], names[i], f"row{i}", f"column{i}")
            axes[f"convs.{i}.bias"] = (names[i + 1],)
        for i in range(len(self.norms or ())):
            axes |= {f"norms.{i}.{kind}": (names[i + 1],) for kind in ("weight", "bias")}
        positions = () if self.pool == "mean" else ("image_row", "image_column")
        axes["head.weight"] = ("output", names[-1], *positions)
        axes["head.bias"] = ("output",)
        free = set(names[1:])
        return axes, frozenset(
            name for group in axes.values() for name in group if name not in free
        )


class PositionwiseLinear(nn.Module):
    """Flatten and linear in one, the weight ``(outputs, channels, height, width)`` keeping its axes apart.

    Args:
        channels: input channels.
        positions: height and width of the input.
        num_outputs: outputs.
    """

    def __init__(self, channels: int, positions: tuple[int, int], num_outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(
            nn.init.kaiming_uniform_(
                nn.Linear(1, 1).weight.new_empty(num_outputs, channels, *positions)
            )
        )
        self.bias = nn.Parameter(self.weight.new_zeros(num_outputs))

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, channels, height, width) -> (B, num_outputs)``."""
        return nn.functional.linear(inputs.flatten(1), self.weight.flatten(1), self.bias)
