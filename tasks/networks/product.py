"""The product of two linear maps of one input, whose backward pass computes the factors again.

Plain autograd remembers both factors u = A x + a and v = B x + b of the product. Both can be had again from x and
the weights, which are remembered anyway, at one matmul for each.

Legend: B batch, n inputs, m outputs.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from torch.nn import functional

Sizes = tuple[int, ...]  # height and width
Gradients = tuple[Tensor | None, Tensor, Tensor | None]  # of inputs, weight and bias


class Map(Protocol):
    """A map that is linear in its inputs and in its weight."""

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """Its value."""
        ...

    def pull(self, grad: Tensor, inputs: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        """Gradients from that of the value; ``wanted`` says whether those of inputs, weight and bias are used."""
        ...


@dataclass(frozen=True)
class Linear:
    """``(B, n) -> (B, m)``, the map of ``torch.nn.Linear``; any number of leading axes."""

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``weight`` is ``(m, n)``."""
        return functional.linear(inputs, weight, bias)

    def pull(self, grad: Tensor, inputs: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        """See ``Map``."""
        rows, columns = grad.reshape(-1, grad.shape[-1]), inputs.reshape(-1, inputs.shape[-1])
        return (grad @ weight if wanted[0] else None, rows.mT @ columns, rows.sum(0) if wanted[2] else None)


@dataclass(frozen=True)
class Conv2d:
    """``(B, n, height, width) -> (B, m, ...)``, the map of ``torch.nn.Conv2d``."""

    stride: Sizes
    padding: Sizes
    dilation: Sizes
    groups: int

    def __call__(self, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """``weight`` is ``(m, n / groups, *kernel_size)``."""
        return functional.conv2d(inputs, weight, bias, self.stride, self.padding, self.dilation, self.groups)

    def pull(self, grad: Tensor, inputs: Tensor, weight: Tensor, wanted: tuple[bool, bool, bool]) -> Gradients:
        """See ``Map``."""
        geometry = (self.stride, self.padding, self.dilation, False, [0, 0], self.groups)
        return torch.ops.aten.convolution_backward(grad, inputs, weight, [weight.shape[0]], *geometry, wanted)


class Branch(NamedTuple):
    """Weight and bias of one of the maps."""

    weight: Tensor
    bias: Tensor | None


def product(map: Map, inputs: Tensor, left: Branch, right: Branch, recompute: int = 2) -> Tensor:
    """``map(inputs, *left) * map(inputs, *right)``.

    Differentiable to any order, also under ``torch.func`` transforms, ``torch.compile`` and autocast.

    Args:
        map: what both factors share.
        inputs: as the map takes them.
        left: weight and bias of the first factor.
        right: of the second factor.
        recompute: how many of the factors the backward pass computes again instead of remembering them: each saves
            B m floats and costs one matmul. 0 is plain autograd.

    Source: QuadraLib (MLSys 2022), "hybrid back-propagation", which has the closed form for linear maps and
    recomputes both factors; here any bias, convolutions, and one factor as well.
    """
    if torch.is_autocast_enabled(inputs.device.type):
        dtype = torch.get_autocast_dtype(inputs.device.type)
        inputs, left, right = inputs.to(dtype), _cast(left, dtype), _cast(right, dtype)
    if recompute == 0:
        return map(inputs, *left) * map(inputs, *right)
    if recompute == 1:
        return _Times.apply(map, map(inputs, *left), inputs, *right)  # pyright: ignore[reportReturnType]
    return _Product.apply(map, inputs, *left, *right)  # pyright: ignore[reportReturnType]


def _cast(branch: Branch, dtype: torch.dtype) -> Branch:
    return Branch(branch.weight.to(dtype), None if branch.bias is None else branch.bias.to(dtype))


class _Product(torch.autograd.Function):
    """``u v`` from the inputs: remembers neither factor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        map: Map, inputs: Tensor, weight: Tensor, bias: Tensor | None, weight2: Tensor, bias2: Tensor | None
    ) -> Tensor:
        return map(inputs, weight, bias) * map(inputs, weight2, bias2)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.map, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, weight, bias, weight2, bias2 = ctx.saved_tensors
        wanted, map = ctx.needs_input_grad, ctx.map
        first, second = (wanted[1], wanted[2], wanted[3]), (wanted[1], wanted[4], wanted[5])
        to_inputs, *own = map.pull(grad * map(inputs, weight2, bias2), inputs, weight, first)
        more, *own2 = map.pull(grad * map(inputs, weight, bias), inputs, weight2, second)
        return None, None if more is None else to_inputs + more, *own, *own2


class _Times(torch.autograd.Function):
    """``u v`` from u and the inputs: remembers the first factor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        map: Map, factor: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return factor * map(inputs, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.map, *tensors = inputs
        ctx.save_for_backward(*tensors)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        factor, inputs, weight, bias = ctx.saved_tensors
        pulled = ctx.map.pull(grad * factor, inputs, weight, ctx.needs_input_grad[2:])
        return None, grad * ctx.map(inputs, weight, bias), *pulled
