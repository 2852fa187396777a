"""The product of two linear maps of one input, whose backward pass computes the factors again.

Plain autograd remembers both factors u = A x + a and v = B x + b of the product. Both can be had again from x and
the weights, which are remembered anyway, at one matmul for each.

Legend: B batch, n inputs, m outputs.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Sizes = tuple[int, ...]  # height and width
Geometry = (
    tuple[Sizes, Sizes, Sizes, int] | None
)  # stride, padding, dilation, groups of a convolution; None: matmul


class Branch(NamedTuple):
    """A linear map.

    Args:
        weight: ``(m, n)``, or ``(m, n / groups, *kernel_size)`` of a convolution.
        bias: ``(m,)``.
    """

    weight: Tensor
    bias: Tensor | None


def apply(geometry: Geometry, inputs: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A branch of inputs ``(..., n)``, or ``(B, n, height, width)`` for a convolution."""
    if geometry is None:
        return functional.linear(inputs, weight, bias)
    return functional.conv2d(inputs, weight, bias, *geometry)


def product(
    geometry: Geometry, inputs: Tensor, left: Branch, right: Branch, recompute: int = 2
) -> Tensor:
    """``apply(geometry, inputs, *left) * apply(geometry, inputs, *right)``.

    Differentiable to any order, also under ``torch.func`` transforms, ``torch.compile`` and autocast.

    Args:
        geometry: of both branches.
        inputs: as ``apply`` takes them.
        left: first factor.
        right: second factor.
        recompute: how many of the factors the backward pass computes again instead of remembering them: each saves
            B m floats and costs one matmul. 0 is plain autograd.

    Source: QuadraLib (MLSys 2022), "hybrid back-propagation", which has the closed form for matmuls without
    bias and recomputes both factors.
    """
    if torch.is_autocast_enabled(inputs.device.type):
        dtype = torch.get_autocast_dtype(inputs.device.type)
        inputs, left, right = inputs.to(dtype), _cast(left, dtype), _cast(right, dtype)
    if recompute == 2:
        return _product(geometry, inputs, *left, *right)
    factor = apply(geometry, inputs, *left)
    return (
        _times(geometry, factor, inputs, *right)
        if recompute
        else factor * apply(geometry, inputs, *right)
    )


def _cast(branch: Branch, dtype: torch.dtype) -> Branch:
    return Branch(branch.weight.to(dtype), None if branch.bias is None else branch.bias.to(dtype))


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.geometry, *tensors = inputs
    ctx.save_for_backward(*tensors)


class _Product(torch.autograd.Function):
    """``u v`` from the inputs: remembers neither factor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        geometry: Geometry,
        inputs: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        weight2: Tensor,
        bias2: Tensor | None,
    ) -> Tensor:
        return apply(geometry, inputs, weight, bias) * apply(geometry, inputs, weight2, bias2)

    setup_context = staticmethod(_remember)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        inputs, weight, bias, weight2, bias2 = ctx.saved_tensors
        geometry, (_, wanted, *own_wanted) = ctx.geometry, ctx.needs_input_grad
        to_first = grad * apply(geometry, inputs, weight2, bias2)
        one, *own = _pull(geometry, to_first, inputs, weight, [wanted, *own_wanted[:2]])
        to_second = grad * apply(geometry, inputs, weight, bias)
        two, *own2 = _pull(geometry, to_second, inputs, weight2, [wanted, *own_wanted[2:]])
        return None, None if one is None or two is None else one + two, *own, *own2


class _Times(torch.autograd.Function):
    """``u v`` from u and the inputs: remembers the first factor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        geometry: Geometry, factor: Tensor, inputs: Tensor, weight: Tensor, bias: Tensor | None
    ) -> Tensor:
        return factor * apply(geometry, inputs, weight, bias)

    setup_context = staticmethod(_remember)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
        factor, inputs, weight, bias = ctx.saved_tensors
        pulled = _pull(ctx.geometry, grad * factor, inputs, weight, ctx.needs_input_grad[2:])
        return None, grad * apply(ctx.geometry, inputs, weight, bias), *pulled


# the compiler cannot look into autograd functions under vmap; kept whole in the graph, they pass
@torch.compiler.allow_in_graph
def _product(*arguments: Any) -> Any:
    return _Product.apply(*arguments)


@torch.compiler.allow_in_graph
def _times(*arguments: Any) -> Any:
    return _Times.apply(*arguments)


def _pull(
    geometry: Geometry, grad: Tensor, inputs: Tensor, weight: Tensor, wanted: Any
) -> tuple[Tensor | None, ...]:
    """Gradients of inputs, weight and bias from that of the value of ``apply``; None where not wanted."""
    if geometry is not None:
        stride, padding, dilation, groups = geometry
        return torch.ops.aten.convolution_backward(
            grad,
            inputs,
            weight,
            [weight.shape[0]],
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            list(wanted),
        )
    rows, columns = grad.reshape(-1, grad.shape[-1]), inputs.reshape(-1, inputs.shape[-1])
    return (
        grad @ weight if wanted[0] else None,
        rows.mT @ columns if wanted[1] else None,
        rows.sum(0) if wanted[2] else None,
    )
