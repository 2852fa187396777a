"""Mixture of (P)ReLU experts with nearest-prototype routing: one expert for each input.

Legend: B examples, L experts, I inputs, O outputs, W width of an expert, A groups of examples of
one expert, C slots of a group.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod, sqrt

import torch
from torch import Tensor, nn
from typing_extensions import override

from tasks.networks import prototypes
from tasks.networks.base import Network, check_sizes
from tasks.networks.dispatch import dispatch, refuse_nonfinite
from tasks.networks.experts import Experts

ACTIVATIONS = ("prelu", "relu")
INITIAL_SLOPE = 0.25  # of PReLU, as in torch.nn.PReLU


class NearestPrototypeMoE(nn.Module):
    """Each input goes to the expert whose prototype is nearest; experts are MLPs of one shape.

    Hard routing gives the prototypes no gradient: set them by ``init_prototypes``, or train with a
    temperature T, which weights all experts by softmax(-distance^2 / T) and falls back to the
    nearest in evaluation. Lower T step by step (``annealed``) and the soft form becomes the hard
    one.

    Args:
        in_features: I.
        out_features: O.
        num_experts: L.
        depth: linear layers of an expert: 0 makes it a constant, 1 an affine map.
        width: W, units of its hidden layers.
        activation: ``prelu``, with one learned slope for each unit of each expert, or ``relu``.
        tree_arity: children of a node of the routing tree, which compares arity * height
            prototypes for each input instead of L; None to compare all.
        temperature: squared distance; None for hard routing in training too.

    Raises:
        ValueError: a value is out of its range.

    Source: the model of Kratsios et al. 2024 (arXiv 2402.03460); the soft form and the tree of
    group means are ours.

    >>> mixture = NearestPrototypeMoE(2, 1, num_experts=8, depth=1)
    >>> mixture(torch.zeros(5, 2)).shape
    torch.Size([5, 1])
    >>> mixture.active_parameters  # of one expert: two weights and a bias
    3
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
        check_sizes(
            in_features=in_features,
            out_features=out_features,
            num_experts=num_experts,
            width=width,
        )
        _check(depth, activation, tree_arity, temperature)

        self.in_features = in_features
        self.out_features = out_features
        self.num_experts = num_experts
        self.depth = depth
        self.width = width
        self.activation = activation
        self.tree_arity = tree_arity
        self.temperature = temperature

        self._make_parameters()
        self._reset_parameters()

    def _make_parameters(self) -> None:
        hidden_sizes = [self.width] * (self.depth - 1)
        output_sizes = [*hidden_sizes, self.out_features]

        self.prototypes = nn.Parameter(torch.empty(self.num_experts, self.in_features))  # (L, I)
        self.weights = nn.ParameterList()
        if self.depth:
            for inputs, outputs in pairwise([self.in_features, *output_sizes]):
                self.weights.append(torch.empty(self.num_experts, outputs, inputs))  # (L, out, in)

        self.biases = nn.ParameterList()
        for outputs in output_sizes:
            self.biases.append(torch.zeros(self.num_experts, outputs))

        self.slopes = nn.ParameterList()
        if self.activation == "prelu":
            for size in hidden_sizes:
                self.slopes.append(torch.full((self.num_experts, size), INITIAL_SLOPE))

    def _reset_parameters(self) -> None:
        for name, parameter in self.named_parameters():
            if parameter.ndim == 3 or name == "prototypes":
                nn.init.normal_(parameter, std=self.initial_std(parameter))
        if self.tree_arity is not None:
            self.set_prototypes(self.prototypes.data)

    @staticmethod
    def initial_std(parameter: Tensor) -> float:
        """Standard deviation at the start of weights ``(L, out, in)`` or prototypes ``(L, I)``.

        Weights start as in He et al. 2015; prototypes get norms near 1.
        """
        variance = 2 if parameter.ndim == 3 else 1
        return sqrt(variance / parameter.shape[-1])

    @property
    def active_parameters(self) -> int:
        """Parameters of the expert that one input uses, without the router's."""
        total = 0
        for name, parameter in self.named_parameters():
            if name != "prototypes":
                total += parameter[0].numel()
        return total

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one input: one expert, and the distances that the router computes."""
        if self.tree_arity is None:
            num_distances = self.num_experts
        else:
            height = prototypes.tree_height(self.num_experts, self.tree_arity)
            num_distances = self.tree_arity * height

        in_expert = sum(weight[0].numel() for weight in self.weights)
        return num_distances * self.in_features + in_expert

    @property
    def experts(self) -> Experts:
        """The parameters of all experts, without copies."""
        return Experts(tuple(self.weights), tuple(self.biases), tuple(self.slopes))

    @torch.no_grad()
    def set_prototypes(self, values: Tensor) -> None:
        """Copy prototypes ``(L, I)``, in the order that the routing tree needs where there is one.

        Experts do not move along: set the prototypes before the experts are trained.
        """
        if self.tree_arity is not None:
            values = values[prototypes.tree_order(values, self.tree_arity)]
        self.prototypes.copy_(values)

    def init_prototypes(self, inputs: Tensor, seed: int = 0) -> None:
        """Set the prototypes to the k-means centres of ``(B, I)`` inputs.

        Raises:
            ValueError: there are fewer different inputs than experts, or one is not finite.
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
        squares = prototypes.distances(inputs, self.prototypes)
        return (-squares / temperature).softmax(-1)

    def forward(self, inputs: Tensor) -> Tensor:
        """``(..., I) -> (..., O)``.

        Raises:
            ValueError: an input is NaN or infinite.
        """
        flat = inputs.reshape(-1, self.in_features)  # (B, I)
        if self.training and self.temperature is not None:
            outputs = self._soft(flat, self.temperature)
        else:
            outputs = self._hard(flat)
        return outputs.reshape(*inputs.shape[:-1], self.out_features)

    def _hard(self, inputs: Tensor) -> Tensor:
        """Each input through its expert, ``(B, I) -> (B, O)``."""
        groups = dispatch(self.route(inputs), inputs, *self.parameters())
        used_experts = self.experts.pick(groups.used)
        return groups.combine(used_experts(groups.pack(inputs)))  # from (A, C, O)

    def _soft(self, inputs: Tensor, temperature: float) -> Tensor:
        """Every input through every expert, weighted, ``(B, I) -> (B, O)``."""
        refuse_nonfinite("inputs", inputs, self.prototypes)
        repeated = inputs.expand(self.num_experts, *inputs.shape)  # (L, B, I)
        all_outputs = self.experts(repeated)  # (L, B, O)
        shares = self.assign(inputs, temperature).unsqueeze(1)  # (B, 1, L)
        return (shares @ all_outputs.transpose(0, 1)).squeeze(1)


def annealed(progress: float, start: float, end: float) -> float:
    """Temperature on the geometric way from ``start`` to ``end``; progress runs from 0 to 1."""
    return start * (end / start) ** progress


def _check(depth: int, activation: str, tree_arity: int | None, temperature: float | None) -> None:
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
        num_experts: number of experts.
        depth: linear layers of an expert.
        width: units of its hidden layers.
        activation: ``prelu`` or ``relu``.
        tree_arity: children of a node of the routing tree, None to compare all prototypes.
        temperature: of the soft assignment that trains the prototypes, squared distance; None for
            hard routing.

    Raises:
        ValueError: a value is out of its range.
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
            in_features=prod(input_shape),
            out_features=num_outputs,
            num_experts=num_experts,
            depth=depth,
            width=width,
            activation=activation,
            tree_arity=tree_arity,
            temperature=temperature,
        )

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.mixture(inputs.flatten(1))

    @override
    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        # fan_in of stacked weights is that of one expert, which the base class cannot know
        if ".weights." in name or name.endswith("prototypes"):
            noise = torch.randn(parameter.shape, generator=generator)
            return noise * self.mixture.initial_std(parameter)
        return torch.full(parameter.shape, INITIAL_SLOPE if ".slopes." in name else 0.0)
