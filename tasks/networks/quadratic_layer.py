"""What linear and convolutional layers of quadratic neurons share: terms, starts, norms, counts.

Legend: B batch, n inputs of a neuron, m outputs.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import prod, sqrt
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.networks.product import Branch, Geometry, apply, product

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
    """A layer of neurons that are sums of terms of degree at most two.

    The default is ``(w_a.x + b_a) (w_b.x + b_b) + w_c.x + b_c``, with 3 n weights and 3 n + 1
    multiply-adds a neuron. The other published types are ``form`` (n^2 weights), ``form+linear``,
    ``form+squares``, ``square``, ``squares``, ``product`` and ``product+squares``.

    Args:
        geometry: of the convolution that all branches are; None for matmuls.
        shape: of the weight of a branch, ``(m, ...)``; the other axes have n entries in all.
        bias: whether every branch has a bias.
        terms: names of the terms, with ``+`` between them.
        init: ``identity`` starts as the linear layer of one branch: the factor beside it is 1,
            all else 0; ``unit_variance`` gives every term an equal share of the variance of the
            outputs.
        gain: root mean square of the outputs at the start, given inputs of unit mean square;
            sqrt(2) suits ``identity`` before a ReLU.
        norm: puts a norm on every branch before the product: ``batch``, ``layer`` (over all
            channels and positions) or ``none``.
        recompute: factors (0, 1 or 2) that the backward pass computes again, see
            ``product.product``; norms remember their inputs, so under a norm nothing is computed
            again.

    Raises:
        ValueError: an unknown name, a value out of its range, or an init that the other arguments
            rule out.

    Source: Xu et al. 2020 (arXiv 2011.10813); the list of types and the branch norms are
    QuadraLib's (Xu et al., MLSys 2022), the identity start is ReLinear's (Fan et al.).
    """

    NORMS: ClassVar[Mapping[str, Any]]  # name -> constructor of a norm of m channels

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
        self.geometry = geometry
        self.recompute = recompute
        self.terms = terms.split("+")
        self.init = init
        self.gain = gain
        self.num_outputs = shape[0]
        self.fan_in = prod(shape[1:])
        self._check_values(norm)
        self._check_identity(bias, norm)

        letters = "".join(TERMS[term] for term in self.terms)
        for letter in letters:
            self._make_branch(letter, shape, bias, factory)

        self.norms = nn.ModuleDict()
        if norm != "none":
            make_norm = self.NORMS[norm]
            for letter in letters:
                self.norms[letter] = make_norm(self.num_outputs, **factory)

        self.reset_parameters()

    def _make_branch(
        self, letter: str, shape: tuple[int, ...], bias: bool, factory: Mapping[str, Any]
    ) -> None:
        is_form = letter == "f"
        weight_shape = (self.num_outputs, self.fan_in, self.fan_in) if is_form else shape
        weight_value = nn.Parameter(torch.empty(weight_shape, **factory))
        self.register_parameter(f"weight_{letter}", weight_value)

        bias_value = None
        if bias and not is_form:
            bias_value = nn.Parameter(torch.empty(self.num_outputs, **factory))
        self.register_parameter(f"bias_{letter}", bias_value)

    def _check_values(self, norm: str) -> None:
        unknown = set(self.terms) - set(TERMS)
        if unknown or len(set(self.terms)) < len(self.terms):
            raise ValueError(
                f"terms must be different names of {list(TERMS)} joined by '+', got {self.terms}."
            )
        if self.init not in INITS:
            raise ValueError(f"init must be one of {INITS}, got {self.init!r}.")

        norm_names = ("none", *self.NORMS)
        if norm not in norm_names:
            raise ValueError(f"norm must be one of {norm_names}, got {norm!r}.")

        if self.recompute not in (0, 1, 2):
            raise ValueError(f"recompute must be 0, 1 or 2, got {self.recompute}.")
        if not self.gain > 0:
            raise ValueError(f"gain must be positive, got {self.gain}.")

    def _check_identity(self, bias: bool, norm: str) -> None:
        if self.init != "identity":
            return

        if "square" in self.terms or not {"product", "linear"} & set(self.terms):
            raise ValueError(
                "init 'identity' needs a product or a linear term, and no square, "
                f"which would stay 0, got the terms {self.terms}."
            )

        if norm != "none" or not bias:
            obstacle = f"norm {norm!r}" if bias else "no bias"
            raise ValueError(
                "init 'identity' needs biases and no norms, since a factor starts as its bias; "
                f"got {obstacle}."
            )

    @property
    def lead(self) -> str:
        """Letter of the branch that an identity start is."""
        return "a" if "product" in self.terms else "c"

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one output of every neuron: its weights, and one for each product."""
        products_of_term = {
            "form": self.fan_in,
            "squares": self.fan_in,
            "product": 1,
            "square": 1,
            "linear": 0,
        }

        per_neuron = sum(products_of_term[term] for term in self.terms)
        for name, parameter in self.named_parameters():
            if name.startswith("weight"):
                per_neuron += parameter[0].numel()
        return self.num_outputs * per_neuron

    def reset_parameters(self) -> None:
        """Draw the parameters anew from torch's global generator."""
        with torch.no_grad():
            for name, parameter in self.named_parameters(recurse=False):
                parameter.copy_(self.initial_value(name, parameter, torch.default_generator))

    def initial_value(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one parameter of this layer, also for the network around it.

        The deviations are exact for Gaussian inputs, and but for ``squares`` for any inputs.
        """
        kind, letter = name.split("_")
        if kind == "bias":
            is_factor_one = self.init == "identity" and letter == "b"
            return torch.full(parameter.shape, float(is_factor_one))
        return torch.randn(parameter.shape, generator=generator) * self._initial_std(letter)

    def _initial_std(self, letter: str) -> float:
        """Standard deviation at the start of the weight of a branch."""
        n = self.fan_in
        if self.init == "identity":
            return self.gain / sqrt(n) if letter == self.lead else 0.0

        share = self.gain**2 / len(self.terms)  # variance of the outputs that a term makes
        if letter in "ab":
            return sqrt(sqrt(share) / n)
        # E[g^4] = 3 of a Gaussian g stands behind the threes
        variances = {
            "c": share / n,
            "d": share / (3 * n),
            "s": sqrt(share / 3) / n,
            "f": share / n**2,
        }
        return sqrt(variances[letter])

    def forward(self, inputs: Tensor) -> Tensor:
        """Of the shapes of the linear layer that this one replaces."""
        outputs = self._term(self.terms[0], inputs)
        for term in self.terms[1:]:
            outputs = outputs + self._term(term, inputs)
        return outputs

    def _term(self, term: str, inputs: Tensor) -> Tensor:
        if term == "product":
            return self._product(inputs)
        if term == "square":
            return self._branch("s", inputs).square()
        if term == "squares":
            return self._branch("d", inputs.square())
        return self._branch(TERMS[term], inputs)

    def _product(self, inputs: Tensor) -> Tensor:
        if self.norms:
            return self._branch("a", inputs) * self._branch("b", inputs)
        return product(
            self.geometry, inputs, self._weights("a"), self._weights("b"), self.recompute
        )

    def _branch(self, letter: str, inputs: Tensor) -> Tensor:
        """The value of a branch, through its norm where there is one."""
        weight, bias = self._weights(letter)
        if letter == "f":
            value = self.form(inputs, weight)
        else:
            value = apply(self.geometry, inputs, weight, bias)
        return self.norms[letter](value) if self.norms else value

    def _weights(self, letter: str) -> Branch:
        return Branch(getattr(self, f"weight_{letter}"), getattr(self, f"bias_{letter}"))

    @abstractmethod
    def form(self, inputs: Tensor, weight: Tensor) -> Tensor:
        """``x^T W x`` with the inputs x of each neuron and ``weight`` ``(m, n, n)``."""

    @override
    def extra_repr(self) -> str:
        terms = "+".join(self.terms)
        return f"{self.fan_in} inputs of each neuron, {terms}, recompute={self.recompute}"


def bilinear_form(inputs: Tensor, weight: Tensor) -> Tensor:
    """``x^T W x``: inputs ``(..., n)`` and weight ``(m, n, n)`` -> ``(..., m)``."""
    num_outputs, n, _ = weight.shape
    reached = nn.functional.linear(inputs, weight.flatten(0, 1)).unflatten(-1, (num_outputs, n))
    return (reached * inputs.unsqueeze(-2)).sum(-1)
