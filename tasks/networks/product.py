"""The product of two linear maps of one input, whose backward pass computes the factors again.

Plain autograd remembers both factors u = A x + a and v = B x + b of the product. Both can be had
again from x and the weights, which are remembered anyway, at one matmul for each.

Legend: B batch, n inputs, m outputs.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

Sizes = tuple[int, ...]  # height and width

# stride, padding, dilation and groups of a convolution; None for a matmul
Geometry = tuple[Sizes, Sizes, Sizes, int] | None


class Branch(NamedTuple):
    """The parameters of a linear map.

    Args:
        weight: ``(m, n)``, or ``(m, n / groups, *kernel_size)`` of a convolution.
        bias: ``(m,)``, or None.
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

    Differentiable to any order, also under ``torch.func`` transforms, ``torch.compile`` and
    autocast.

    Args:
        geometry: of both branches.
        inputs: as ``apply`` takes them.
        left: first factor.
        right: second factor.
        recompute: how many of the factors the backward pass computes again instead of
            remembering them: each saves B m floats and costs one matmul. 0 is plain autograd.

    Returns:
        Tensor: of the shape of one factor.

    Source: QuadraLib (Xu et al., MLSys 2022), "hybrid back-propagation", which has the closed
    form for matmuls without bias and recomputes both factors.
    """
    if torch.is_autocast_enabled(inputs.device.type):
        # autocast does not reach into an autograd function
        dtype = torch.get_autocast_dtype(inputs.device.type)
        inputs = inputs.to(dtype)
        left = _cast(left, dtype)
        right = _cast(right, dtype)

    if recompute == 2:
        return _product(geometry, inputs, *left, *right)

    factor = apply(geometry, inputs, *left)
    if recompute == 1:
        return _times(geometry, factor, inputs, *right)
    return factor * apply(geometry, inputs, *right)


def _cast(branch: Branch, dtype: torch.dtype) -> Branch:
    bias = None if branch.bias is None else branch.bias.to(dtype)
    return Branch(branch.weight.to(dtype), bias)


def _remember(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    geometry, *tensors = inputs
    ctx.geometry = geometry
    ctx.save_for_backward(*tensors)


class _Product(torch.autograd.Function):
    """``u v`` from the inputs: remembers neither factor."""

    generate_vmap_rule = True

    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        geometry: Geometry,
        inputs: Tensor,
        left_weight: Tensor,
        left_bias: Tensor | None,
        right_weight: Tensor,
        right_bias: Tensor | None,
    ) -> Tensor:
        left = apply(geometry, inputs, left_weight, left_bias)
        return left * apply(geometry, inputs, right_weight, right_bias)

    setup_context = staticmethod(_remember)

    @staticmethod
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> Any:
        inputs, left_weight, left_bias, right_weight, right_bias = ctx.saved_tensors
        _, needs_inputs, *needs_parameters = ctx.needs_input_grad
        needs_left = [needs_inputs, *needs_parameters[:2]]
        needs_right = [needs_inputs, *needs_parameters[2:]]

        grad_left = grad * apply(ctx.geometry, inputs, right_weight, right_bias)
        inputs_by_left, *left_grads = _pull(
            ctx.geometry, grad_left, inputs, left_weight, needs_left
        )
        grad_right = grad * apply(ctx.geometry, inputs, left_weight, left_bias)
        inputs_by_right, *right_grads = _pull(
            ctx.geometry, grad_right, inputs, right_weight, needs_right
        )

        grad_inputs = None
        if inputs_by_left is not None and inputs_by_right is not None:
            grad_inputs = inputs_by_left + inputs_by_right
        return None, grad_inputs, *left_grads, *right_grads


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
    def backward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, grad: Tensor
    ) -> Any:
        factor, inputs, weight, bias = ctx.saved_tensors
        needs = ctx.needs_input_grad[2:]
        right_grads = _pull(ctx.geometry, grad * factor, inputs, weight, needs)
        grad_factor = grad * apply(ctx.geometry, inputs, weight, bias)
        return None, grad_factor, *right_grads


# the compiler cannot look into autograd functions under vmap; kept whole in the graph, they pass
@torch.compiler.allow_in_graph
def _product(*arguments: Any) -> Any:
    return _Product.apply(*arguments)


@torch.compiler.allow_in_graph
def _times(*arguments: Any) -> Any:
    return _Times.apply(*arguments)


def _pull(
    geometry: Geometry, grad: Tensor, inputs: Tensor, weight: Tensor, needs: Sequence[bool]
) -> tuple[Tensor | None, ...]:
    """Gradients of inputs, weight and bias of ``apply`` from that of its value.

    Args:
        geometry: of the branch.
        grad: gradient of the value.
        inputs: what the branch read.
        weight: of the branch.
        needs: which of the three are computed; None is returned for the others.
    """
    needs_inputs, needs_weight, needs_bias = needs

    if geometry is not None:
        stride, padding, dilation, groups = geometry
        return torch.ops.aten.convolution_backward(
            grad,
            inputs,
            weight,
            bias_sizes=[weight.shape[0]],
            stride=stride,
            padding=padding,
            dilation=dilation,
            transposed=False,
            output_padding=[0, 0],
            groups=groups,
            output_mask=list(needs),
        )

    grad_rows = grad.reshape(-1, grad.shape[-1])  # (rows, m)
    input_rows = inputs.reshape(-1, inputs.shape[-1])  # (rows, n)
    grad_inputs = grad @ weight if needs_inputs else None
    grad_weight = grad_rows.mT @ input_rows if needs_weight else None
    grad_bias = grad_rows.sum(0) if needs_bias else None
    return grad_inputs, grad_weight, grad_bias
