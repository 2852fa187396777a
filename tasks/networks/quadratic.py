"""Quadratic neurons as drop-in layers: outputs are polynomials of degree two in the inputs.

Legend: B batch, n inputs of a neuron, m outputs.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, ClassVar, Literal

from torch import Tensor, nn
from torch.nn import functional
from typing_extensions import override

from tasks.networks.base import check_sizes
from tasks.networks.product import Geometry, Sizes
from tasks.networks.quadratic_layer import DEFAULT_TERMS, QuadraticLayer, bilinear_form


class QuadraticLinear(QuadraticLayer):
    """``torch.nn.Linear`` of quadratic neurons: ``(..., n) -> (..., m)``.

    Args:
        in_features: n.
        out_features: m.
        bias: whether every branch has a bias.
        device: of the parameters.
        dtype: of the parameters.
        terms: see ``QuadraticLayer``, as all that follow.
        init: how the parameters start.
        gain: scale of the start.
        norm: norms of the branches.
        recompute: factors that the backward pass computes again.

    Raises:
        ValueError: a value is out of its range, or an init that the other arguments rule out.

    Source: Xu et al. 2020 (arXiv 2011.10813), the default terms.

    >>> import torch
    >>> layer = QuadraticLinear(8, 3)
    >>> layer(torch.zeros(5, 8)).shape
    torch.Size([5, 3])
    >>> sum(param.numel() for param in layer.parameters())  # 3 n + 3 for each neuron
    81
    """

    NORMS: ClassVar[Mapping[str, Any]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        terms: str = DEFAULT_TERMS,
        init: str = "identity",
        gain: float = 1.0,
        norm: str = "none",
        recompute: int = 2,
    ) -> None:
        check_sizes(in_features=in_features, out_features=out_features)

        super().__init__(
            geometry=None,
            shape=(out_features, in_features),
            bias=bias,
            terms=terms,
            init=init,
            gain=gain,
            norm=norm,
            recompute=recompute,
            device=device,
            dtype=dtype,
        )

        self.in_features = in_features
        self.out_features = out_features

    @override
    def form(self, inputs: Tensor, weight: Tensor) -> Tensor:
        return bilinear_form(inputs, weight)


class QuadraticConv2d(QuadraticLayer):
    """``torch.nn.Conv2d`` of quadratic neurons: each linear map becomes a convolution.

    Args:
        in_channels: channels read.
        out_channels: m.
        kernel_size: one number, or height and width; so are stride, padding and dilation.
        stride: step of the kernel.
        padding: pixels on each side; ``same`` keeps the size at stride 1, ``valid`` is 0.
        dilation: distance of the kernel's points.
        groups: blocks of channels that do not see each other; the term ``form`` needs one block.
        bias: whether every branch has a bias.
        padding_mode: ``zeros``, ``reflect``, ``replicate`` or ``circular``.
        device: of the parameters.
        dtype: of the parameters.
        terms: see ``QuadraticLayer``, as all that follow.
        init: how the parameters start.
        gain: scale of the start.
        norm: norms of the branches.
        recompute: factors that the backward pass computes again.

    Raises:
        ValueError: a value is out of its range, or an init that the other arguments rule out.

    Source: Xu et al. 2020 (arXiv 2011.10813), the default terms.
    """

    NORMS: ClassVar[Mapping[str, Any]] = {
        "batch": nn.BatchNorm2d,
        "layer": partial(nn.GroupNorm, 1),
    }

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int | Sizes,
        stride: int | Sizes = 1,
        padding: int | Sizes | str = 0,
        dilation: int | Sizes = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: Literal["zeros", "reflect", "replicate", "circular"] = "zeros",
        device: Any = None,
        dtype: Any = None,
        *,
        terms: str = DEFAULT_TERMS,
        init: str = "identity",
        gain: float = 1.0,
        norm: str = "none",
        recompute: int = 2,
    ) -> None:
        # torch's own layer checks the geometry and says how wide each side is padded
        sizes: Any = (kernel_size, stride, padding, dilation, groups)
        plain = nn.Conv2d(
            in_channels, out_channels, *sizes, bias=False, padding_mode=padding_mode, device="meta"
        )
        if groups > 1 and "form" in terms.split("+"):
            raise ValueError(f"the term 'form' needs groups=1, got {groups}.")

        # the convolution itself pads with zeros where both sides are alike; else forward does
        sides: list[int] = plain._reversed_padding_repeated_twice  # left, right, top, bottom
        is_inner = padding_mode == "zeros" and sides[::2] == sides[1::2]
        inner_padding = (sides[2], sides[0]) if is_inner else (0, 0)
        geometry: Geometry = (plain.stride, inner_padding, plain.dilation, groups)
        super().__init__(
            geometry=geometry,
            shape=tuple(plain.weight.shape),
            bias=bias,
            terms=terms,
            init=init,
            gain=gain,
            norm=norm,
            recompute=recompute,
            device=device,
            dtype=dtype,
        )

        self.kernel_size = plain.kernel_size
        self.sides = None if is_inner else sides
        self.padding_mode = padding_mode.replace("zeros", "constant")

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, in_channels, height, width) -> (B, m, ...)``; also one image alone."""
        if inputs.ndim == 3:
            return self(inputs.unsqueeze(0)).squeeze(0)

        if self.sides is not None:
            inputs = functional.pad(inputs, self.sides, self.padding_mode)
        return super().forward(inputs)

    @override
    def form(self, inputs: Tensor, weight: Tensor) -> Tensor:
        assert self.geometry is not None
        stride, padding, dilation, _ = self.geometry

        output_sizes = []
        for axis, size in enumerate(inputs.shape[2:]):
            span = dilation[axis] * (self.kernel_size[axis] - 1) + 1
            output_sizes.append((size + 2 * padding[axis] - span) // stride[axis] + 1)

        patches = functional.unfold(inputs, self.kernel_size, dilation, padding, stride)
        outputs = bilinear_form(patches.mT, weight)  # (B, positions, m)
        return outputs.mT.contiguous().unflatten(-1, output_sizes)
