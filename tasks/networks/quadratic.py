"""Quadratic neurons as drop-in layers: outputs are polynomials of degree two in the inputs.

Legend: B batch, n inputs of a neuron, m outputs.
"""

from abc import ABC, abstractmethod
from functools import partial, reduce
from math import prod, sqrt
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from tasks.networks.base import check_sizes
from tasks.networks.product import Branch, Geometry, Sizes, apply, product

TERMS = {  # name -> letters of its branches
    "form": "f",  # x^T W_f x; holds no linear map and has no bias
    "product": "ab",  # (w_a.x + b_a) (w_b.x + b_b)
    "square": "s",  # (w_s.x + b_s)^2
    "squares": "d",  # w_d.(x * x) + b_d
    "linear": "c",  # w_c.x + b_c
}
INITS = ("identity", "unit_variance")
DEFAULT_TERMS = "product+linear"


class QuadraticLayer(nn.Module, ABC):
    """What linear and convolutional quadratic neurons share: a sum of terms of degree at most two.

    The default is ``(w_a.x + b_a) (w_b.x + b_b) + w_c.x + b_c``, with 3 n weights and 3 n + 1 multiply-adds a neuron.
    The other published types are ``form`` (n^2 weights), ``form+linear``, ``form+squares``, ``square``, ``squares``,
    ``product`` and ``product+squares``.

    Args:
        geometry: of the convolution that all branches are; None for matmuls.
        shape: of the weight of a branch, ``(m, ...)``; the other axes have n entries in all.
        bias: whether every branch has a bias.
        terms: names of the terms, with ``+`` between them.
        init: ``identity`` starts as the linear layer of one branch: the factor beside it is 1, all else 0;
            ``unit_variance`` gives every term an equal share of the variance of the outputs.
        gain: root mean square of the outputs at the start, given inputs of unit mean square; sqrt(2) suits
            ``identity`` before a ReLU.
        norm: puts a norm on every branch before the product: ``batch``, ``layer`` (over all channels and positions)
            or ``none``.
        recompute: factors (0, 1 or 2) that the backward pass computes again, see ``product.product``; norms remember
            their inputs, so under a norm nothing is computed again.

    Raises:
        ValueError: an unknown name, a value out of its range, or an init that the other arguments rule out.

    Source: Xu et al. 2020 (arXiv 2011.10813); the list of types and the branch norms are QuadraLib's (Xu et al.,
    MLSys 2022), the identity start is ReLinear's (Fan et al.).
    """

    NORMS: ClassVar[dict[str, Any]]  # name -> constructor of a norm of m channels

    def __init__(
        self,
        geometry: Geometry,
        shape: tuple[int, ...],
        bias: bool,
        terms: str,
        init: str,
        gain: float,
        norm: str,
        recompute: int,
        **factory: Any,
    ) -> None:
        super().__init__()
        self.geometry, self.recompute = geometry, recompute
        self.terms, self.init, self.gain = terms.split("+"), init, gain
        self.num_outputs, self.fan_in = shape[0], prod(shape[1:])
        self._check(bias, norm)
        letters = "".join(TERMS[term] for term in self.terms)
        for letter in letters:
            own = (shape[0], self.fan_in, self.fan_in) if letter == "f" else shape
            setattr(self, f"weight_{letter}", nn.Parameter(torch.empty(own, **factory)))
            has_bias = bias and letter != "f"
            value = nn.Parameter(torch.empty(shape[0], **factory)) if has_bias else None
            self.register_parameter(f"bias_{letter}", value)
        make = self.NORMS.get(norm)
        self.norms = nn.ModuleDict(
            {letter: make(shape[0], **factory) for letter in letters if make}
        )
        self.reset_parameters()

    def _check(self, bias: bool, norm: str) -> None:
        unknown = sorted(set(self.terms) - set(TERMS))
        if unknown or len(set(self.terms)) < len(self.terms):
            raise ValueError(
                f"terms must be different names of {list(TERMS)} joined by '+', got {self.terms}."
            )
        if self.init not in INITS:
            raise ValueError(f"init must be one of {INITS}, got {self.init!r}.")
        if norm not in ("none", *self.NORMS):
            raise ValueError(f"norm must be one of {('none', *self.NORMS)}, got {norm!r}.")
        if self.recompute not in (0, 1, 2):
            raise ValueError(f"recompute must be 0, 1 or 2, got {self.recompute}.")
        if not self.gain > 0:
            raise ValueError(f"gain must be positive, got {self.gain}.")
        if self.init == "unit_variance":
            return
        if "square" in self.terms or not {"product", "linear"} & set(self.terms):
            rule = "needs a product or a linear term, and no square, which would stay 0"
            raise ValueError(f"init 'identity' {rule}, got the terms {self.terms}.")
        if norm != "none" or not bias:
            given = "no bias" if not bias else f"norm {norm!r}"
            raise ValueError(
                f"init 'identity' needs biases and no norms, since a factor starts as its bias; got {given}."
            )

    @property
    def lead(self) -> str:
        """Letter of the branch that an identity start is."""
        return "a" if "product" in self.terms else "c"

    @property
    def multiply_adds(self) -> int:
        """Of one output of every neuron: those of the weights, and one for each product."""
        products = {
            "form": self.fan_in,
            "squares": self.fan_in,
            "product": 1,
            "square": 1,
            "linear": 0,
        }
        weights = sum(
            p[0].numel() for name, p in self.named_parameters() if name.startswith("weight")
        )
        return self.num_outputs * (weights + sum(products[term] for term in self.terms))

    def reset_parameters(self) -> None:
        """Draw the parameters anew from torch's global generator."""
        with torch.no_grad():
            for name, parameter in self.named_parameters(recurse=False):
                parameter.copy_(self.initial_value(name, parameter, torch.default_generator))

    def initial_value(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """See ``Layer``; the deviations are exact for Gaussian inputs, and but for ``squares`` for any inputs."""
        kind, letter = name.split("_")
        if kind == "bias":
            return torch.full(parameter.shape, float(self.init == "identity" and letter == "b"))
        n, share = self.fan_in, self.gain**2 / len(self.terms)
        if self.init == "identity":
            deviation = self.gain / sqrt(n) if letter == self.lead else 0.0
        elif letter in "ab":
            deviation = sqrt(sqrt(share) / n)
        else:
            deviation = sqrt(
                {"c": share / n, "d": share / (3 * n), "s": sqrt(share / 3) / n, "f": share / n**2}[
                    letter
                ]
            )
        return torch.randn(parameter.shape, generator=generator) * deviation

    def forward(self, inputs: Tensor) -> Tensor:
        """As the linear layer of the same shape."""
        return reduce(torch.add, (self._term(name, inputs) for name in self.terms))

    def _term(self, name: str, inputs: Tensor) -> Tensor:
        if name == "product":
            if self.norms:
                return self._branch("a", inputs) * self._branch("b", inputs)
            return product(
                self.geometry, inputs, self._weights("a"), self._weights("b"), self.recompute
            )
        value = self._branch(TERMS[name], inputs.square() if name == "squares" else inputs)
        return value.square() if name == "square" else value

    def _branch(self, letter: str, inputs: Tensor) -> Tensor:
        weights = self._weights(letter)
        value = (
            self.form(inputs, weights.weight)
            if letter == "f"
            else apply(self.geometry, inputs, *weights)
        )
        return self.norms[letter](value) if self.norms else value

    def _weights(self, letter: str) -> Branch:
        return Branch(getattr(self, f"weight_{letter}"), getattr(self, f"bias_{letter}"))

    @abstractmethod
    def form(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """``x^T W x`` with the inputs x of each neuron and ``weight`` ``(m, n, n)``."""

    def extra_repr(self) -> str:
        """Shape and terms."""
        return f"{self.fan_in} inputs of each neuron, {'+'.join(self.terms)}, recompute={self.recompute}"


class QuadraticLinear(QuadraticLayer):
    """``torch.nn.Linear`` of quadratic neurons.

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
    """

    NORMS: ClassVar = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}

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
        shape = (out_features, in_features)
        super().__init__(
            None, shape, bias, terms, init, gain, norm, recompute, device=device, dtype=dtype
        )
        self.in_features, self.out_features = in_features, out_features

    def form(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """``(..., n) -> (..., m)``."""
        return _form(inputs, weight)


class QuadraticConv2d(QuadraticLayer):
    """``torch.nn.Conv2d`` of quadratic neurons.

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
    """

    NORMS: ClassVar = {"batch": nn.BatchNorm2d, "layer": partial(nn.GroupNorm, 1)}

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
        given: Any = (kernel_size, stride, padding, dilation, groups)
        like = nn.Conv2d(
            in_channels, out_channels, *given, bias=False, padding_mode=padding_mode, device="meta"
        )
        if groups > 1 and "form" in terms.split("+"):
            raise ValueError(f"the term 'form' needs groups=1, got {groups}.")
        sides: list[int] = like._reversed_padding_repeated_twice
        even = padding_mode == "zeros" and sides[::2] == sides[1::2]
        inner = (sides[2], sides[0]) if even else (0, 0)
        shape, geometry = tuple(like.weight.shape), (like.stride, inner, like.dilation, groups)
        super().__init__(
            geometry, shape, bias, terms, init, gain, norm, recompute, device=device, dtype=dtype
        )
        self.kernel_size, self.sides = like.kernel_size, None if even else sides
        self.padding_mode = padding_mode.replace("zeros", "constant")

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, in_channels, height, width) -> (B, m, ...)``; also one image alone."""
        if inputs.ndim == 3:
            return self(inputs.unsqueeze(0)).squeeze(0)
        padded = (
            inputs if self.sides is None else functional.pad(inputs, self.sides, self.padding_mode)
        )
        return super().forward(padded)

    def form(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """``(B, in_channels, height, width) -> (B, m, ...)``."""
        assert self.geometry is not None
        stride, padding, dilation, _ = self.geometry
        axes = zip(inputs.shape[2:], self.kernel_size, stride, padding, dilation, strict=True)
        sizes = [
            (size + 2 * pad - spread * (kernel - 1) - 1) // step + 1
            for size, kernel, step, pad, spread in axes
        ]
        patches = functional.unfold(
            inputs, self.kernel_size, dilation, padding, stride
        )  # (B, n, positions)
        return _form(patches.mT, weight).mT.contiguous().unflatten(-1, sizes)


def _form(inputs: Tensor, weight: Tensor) -> Tensor:
    """``x^T W x``, ``(..., n)`` and ``(m, n, n) -> (..., m)``."""
    reached = functional.linear(inputs, weight.flatten(0, 1)).unflatten(-1, weight.shape[:2])
    return (reached * inputs.unsqueeze(-2)).sum(-1)
