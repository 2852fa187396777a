"""Mixture of (P)ReLU experts with nearest-prototype routing: one expert for each input.

Legend: B examples, L experts, I inputs, O outputs, W width of an expert, A groups of examples of one expert, C places
in a group.
"""

from collections.abc import Sequence
from math import prod, sqrt
from typing import NamedTuple

import torch
from torch import Tensor, nn

from tasks.networks import prototypes
from tasks.networks.base import Network, check_sizes
from tasks.networks.dispatch import dispatch, refuse_nonfinite

ACTIVATIONS = ("prelu", "relu")


class NearestPrototypeMoE(nn.Module):
    """Each input goes to the expert whose prototype is nearest; experts are MLPs of one shape, stacked in one tensor.

    Hard routing gives the prototypes no gradient: set them by ``init_prototypes``, or train with a temperature T, which
    weights all experts by softmax(-distance^2 / T) and falls back to the nearest in evaluation. Lower T step by step
    (``annealed``) and the soft form becomes the hard one.

    Args:
        in_features: I.
        out_features: O.
        num_experts: L.
        depth: linear layers of an expert: 0 makes it a constant, 1 an affine map.
        width: W, units of its hidden layers.
        activation: ``prelu``, with one learned slope for each unit of each expert, or ``relu``.
        tree_arity: children of a node of the routing tree, which compares arity * height prototypes for each input
            instead of L; None to compare all.
        temperature: squared distance; None for hard routing in training too.

    Raises:
        ValueError: a value is out of its range.

    Source: Kratsios et al. 2024 (arXiv 2402.03460), its model; the soft form and the tree of group means are ours.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_experts: int,
        depth: int = 2,
        width: int = 16,
        activation: str = "prelu",
        tree_arity: int | None = None,
        temperature: float | None = None,
    ) -> None:
        super().__init__()
        _check(
            in_features,
            out_features,
            num_experts,
            depth,
            width,
            activation,
            tree_arity,
            temperature,
        )
        self.in_features, self.out_features, self.num_experts = (
            in_features,
            out_features,
            num_experts,
        )
        self.depth, self.width, self.activation = depth, width, activation
        self.tree_arity, self.temperature = tree_arity, temperature
        sizes = [in_features, *[width] * (depth - 1), out_features]
        outs = sizes[1:] if depth else [out_features]
        self.prototypes = nn.Parameter(torch.empty(num_experts, in_features))
        self.weights = nn.ParameterList(
            torch.empty(num_experts, outs[i], sizes[i]) for i in range(depth)
        )
        self.biases = nn.ParameterList(torch.zeros(num_experts, size) for size in outs)
        learned = activation == "prelu"
        self.slopes = nn.ParameterList(
            torch.full((num_experts, size), 0.25) for size in outs[:-1] if learned
        )
        for name, parameter in self.named_parameters():
            if parameter.ndim == 3 or name == "prototypes":
                nn.init.normal_(parameter, std=self.initial_std(parameter))
        if tree_arity is not None:
            self.set_prototypes(self.prototypes.data)

    @staticmethod
    def initial_std(parameter: Tensor) -> float:
        """Standard deviation at the start of weights ``(L, out, in)``, and of prototypes, which get norms near 1."""
        return sqrt((2 if parameter.ndim == 3 else 1) / parameter.shape[-1])

    @property
    def active_parameters(self) -> int:
        """Parameters of the expert that one input uses; the router's comparisons are not among them."""
        return sum(p[0].numel() for name, p in self.named_parameters() if name != "prototypes")

    @property
    def multiply_adds(self) -> int:
        """Of one input: one expert and the distances that the router computes."""
        height = (
            0
            if self.tree_arity is None
            else prototypes.tree_height(self.num_experts, self.tree_arity)
        )
        compared = self.num_experts if self.tree_arity is None else self.tree_arity * height
        return compared * self.in_features + sum(weight[0].numel() for weight in self.weights)

    @torch.no_grad()
    def set_prototypes(self, values: Tensor) -> None:
        """Copy ``(L, I)`` prototypes, ordered as the routing tree needs them where there is one."""
        order = (
            slice(None)
            if self.tree_arity is None
            else prototypes.tree_order(values, self.tree_arity)
        )
        self.prototypes.copy_(values[order])

    def init_prototypes(self, inputs: Tensor, seed: int = 0) -> None:
        """Set the prototypes to the k-means centres of ``(B, I)`` inputs.

        Raises:
            ValueError: there are fewer different inputs than experts, or one is NaN or infinite.
        """
        refuse_nonfinite("inputs", inputs)
        self.set_prototypes(prototypes.kmeans(inputs, self.num_experts, seed))

    def route(self, inputs: Tensor) -> Tensor:
        """The expert of each input, ``(B, I) -> (B,)``.

        Raises:
            ValueError: an input is NaN or infinite.
        """
        refuse_nonfinite("inputs", inputs, self.prototypes)
        return prototypes.route(inputs, self.prototypes, self.tree_arity)

    def assign(self, inputs: Tensor, temperature: float) -> Tensor:
        """Weights of the experts, softmax(-distance^2 / temperature): ``(B, I) -> (B, L)``."""
        return (-prototypes.distances(inputs, self.prototypes) / temperature).softmax(-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(..., I) -> (..., O)``.

        Raises:
            ValueError: an input is NaN or infinite.
        """
        flat = inputs.reshape(-1, self.in_features)
        if self.training and self.temperature is not None:
            refuse_nonfinite("inputs", flat, self.prototypes)
            everyone = self.experts(flat.expand(self.num_experts, *flat.shape))  # (L, B, O)
            outputs = (
                self.assign(flat, self.temperature).unsqueeze(1) @ everyone.transpose(0, 1)
            ).squeeze(1)
        else:
            groups = dispatch(self.route(flat), flat, *self.parameters())
            outputs = groups.combine(self.experts.pick(groups.used)(groups.pack(flat)))
        return outputs.reshape(*inputs.shape[:-1], self.out_features)

    @property
    def experts(self) -> "Experts":
        """The parameters of all experts."""
        return Experts(tuple(self.weights), tuple(self.biases), tuple(self.slopes))


class Experts(NamedTuple):
    """Parameters of A experts.

    Args:
        weights: ``(A, out, in)`` for each linear layer; none for constants.
        biases: ``(A, out)`` for each.
        slopes: ``(A, width)`` for each hidden layer; none for ReLU.
    """

    weights: tuple[Tensor, ...]
    biases: tuple[Tensor, ...]
    slopes: tuple[Tensor, ...]

    def pick(self, used: Tensor) -> "Experts":
        """Some of the experts, by index ``(A,)``."""
        return Experts(*(tuple(stack[used] for stack in stacks) for stacks in self))

    def __call__(self, hidden: Tensor) -> Tensor:
        """A group of inputs through each expert: ``(A, C, I) -> (A, C, O)``."""
        if not self.weights:
            return self.biases[0].unsqueeze(1) + 0 * hidden.sum(-1, keepdim=True)  # NaN stays NaN
        for i, (weight, bias) in enumerate(zip(self.weights, self.biases, strict=True)):
            if i:
                slope = self.slopes[i - 1].unsqueeze(1) if self.slopes else 0.0
                hidden = hidden.clamp(min=0) + slope * hidden.clamp(max=0)
            hidden = hidden @ weight.mT + bias.unsqueeze(1)
        return hidden


def annealed(progress: float, start: float, end: float) -> float:
    """Temperature on the geometric way from ``start`` to ``end``; progress runs from 0 to 1."""
    return start * (end / start) ** progress


def _check(
    in_features: int,
    out_features: int,
    num_experts: int,
    depth: int,
    width: int,
    activation: str,
    tree_arity: int | None,
    temperature: float | None,
) -> None:
    check_sizes(
        in_features=in_features, out_features=out_features, num_experts=num_experts, width=width
    )
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}.")
    if activation not in ACTIVATIONS:
        raise ValueError(f"activation must be one of {', '.join(ACTIVATIONS)}, got {activation!r}.")
    if tree_arity is not None and tree_arity < 2:
        raise ValueError(f"tree_arity must be at least 2, got {tree_arity}.")
    if temperature is not None and temperature <= 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")


class MoEMLP(Network):
    """Flatten, then one mixture of expert MLPs, whose inputs are the examples themselves.

    Args:
        input_shape: shape of one example.
        num_outputs: outputs, e.g. classes.
        num_experts: experts.
        depth: linear layers of an expert.
        width: units of its hidden layers.
        activation: ``prelu`` or ``relu``.
        tree_arity: children of a node of the routing tree, None to compare all prototypes.
        temperature: of the soft assignment that trains the prototypes, squared distance; None for hard routing.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        num_experts: int = 4,
        depth: int = 2,
        width: int = 16,
        activation: str = "prelu",
        tree_arity: int | None = None,
        temperature: float | None = 1.0,
    ) -> None:
        super().__init__()
        self.mixture = NearestPrototypeMoE(
            prod(input_shape),
            num_outputs,
            num_experts,
            depth,
            width,
            activation,
            tree_arity,
            temperature,
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, *input_shape) -> (B, num_outputs)``."""
        return self.mixture(inputs.flatten(1))

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Weights at the scale of one expert, prototypes of norm 1, slopes 0.25, biases 0."""
        if ".weights." in name or name.endswith("prototypes"):
            return torch.randn(parameter.shape, generator=generator) * self.mixture.initial_std(
                parameter
            )
        return torch.full(parameter.shape, 0.25 if ".slopes." in name else 0.0)
