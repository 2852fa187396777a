"""Conditional computation: a linear layer with 2^K weight matrices at the cost of K + 1 small ones.

Legend: B examples, K gating bits (depth of the tree), N nodes below the root, R rank of a node,
I inputs, O outputs.
"""

from math import sqrt

import torch
from torch import Tensor, nn

from tasks.networks import prefix_nodes
from tasks.networks.base import check_sizes
from tasks.networks.dispatch import refuse_nonfinite
from tasks.networks.prefix_gates import (
    log_probability,
    node_levels,
    node_probabilities,
    num_nodes,
)

GATES = ("linear", "sign")
MODES = ("straight_through", "soft", "noisy")


class PrefixTreeLinear(nn.Module):
    """Linear layer whose weight depends on K gating bits: one matrix for each prefix, summed.

    ``W(b) = U_() + U_(b1) + U_(b1 b2) + ... + U_(b1 ... bK)``, bit b_j = [gate_j > 0]. A forward
    pass touches K + 1 of the 2^(K+1) - 1 matrices for each example. In training, the mode says
    how the gates get a gradient:

    * ``straight_through``: the hard bits forward; backward, the exact derivative of the soft form
      at those bits times that of the sigmoid (K further paths, each with one bit flipped).
    * ``soft``: every node, weighted by its probability; equal to the hard form where the gates
      are saturated.
    * ``noisy``: soft, with Gaussian noise on the gates, which drives them to saturate.

    The fourth way, REINFORCE, needs the loss: see ``sample``. In evaluation all modes are hard.

    Args:
        in_features: I.
        out_features: O.
        depth: K; 0 is a plain linear layer.
        rank: nodes below the root are products of an (O, rank) and a (rank, I) matrix; None for
            full matrices.
        gate: ``linear`` gives each bit weights of its own; ``sign`` takes the leading K features
            of the source.
        mode: how gates are trained.
        bias: add a learned vector, as ``nn.Linear`` does.
        noise: standard deviation of the noise of ``noisy``, in units of the gates.

    Raises:
        ValueError: a value is out of its range.

    Source: Cho & Bengio 2014 (arXiv 1406.7362), from the definition in its abstract; the rank, the
    straight-through rule and the initialisation are ours.

    >>> layer = PrefixTreeLinear(8, 4, depth=3, rank=2)
    >>> layer(torch.zeros(5, 8)).shape
    torch.Size([5, 4])
    >>> sum(param.numel() for param in layer.parameters()), layer.active_parameters
    (399, 135)
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        depth: int,
        rank: int | None = None,
        gate: str = "linear",
        mode: str = "straight_through",
        bias: bool = True,
        noise: float = 1.0,
    ) -> None:
        super().__init__()
        _check(in_features, out_features, depth, rank, gate, mode, noise)
        self.in_features = in_features
        self.out_features = out_features
        self.depth = depth
        self.rank = rank
        self.gate = gate
        self.mode = mode
        self.noise = noise

        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.empty(out_features)) if bias else None
        if depth and rank is None:
            self.nodes = nn.Parameter(torch.empty(num_nodes(depth), out_features, in_features))
        elif depth and rank is not None:
            self.left = nn.Parameter(torch.empty(num_nodes(depth), rank, out_features))
            self.right = nn.Parameter(torch.empty(num_nodes(depth), rank, in_features))
        if depth and gate == "linear":
            self.gate_weight = nn.Parameter(torch.empty(depth, in_features))
            self.gate_bias = nn.Parameter(torch.empty(depth))

        for name, parameter in self.named_parameters():
            nn.init.normal_(parameter, std=self.initial_std(name))

    def initial_std(self, name: str) -> float:
        """Standard deviation at the start of a parameter of this layer.

        W(b) of every code starts with entries of variance 2 / I, biases with 0.
        """
        share = 2 / (self.depth + 1)  # of each node on a path in the variance of W(b), times I
        variances = {
            "weight": share / self.in_features,
            "nodes": share / self.in_features,
            "left": share / (self.rank or 1),
            "right": 1 / self.in_features,
            "gate_weight": 1 / self.in_features,
        }

        return sqrt(variances.get(name, 0.0))

    def initial_value(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """Draw one parameter of this layer for the network around it."""
        return torch.randn(parameter.shape, generator=generator) * self.initial_std(name)

    @property
    def active_parameters(self) -> int:
        """Parameters that one example touches in the hard form."""
        root = self.out_features * self.in_features
        if self.rank is None:
            node = root
        else:
            node = self.rank * (self.out_features + self.in_features)

        gates = self._num_linear_gates * (self.in_features + 1)
        return root + self.depth * node + gates + self._num_biases

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one example in the hard form, gates included."""
        return self.active_parameters - self._num_biases - self._num_linear_gates

    @property
    def _num_linear_gates(self) -> int:
        return self.depth if self.gate == "linear" else 0

    @property
    def _num_biases(self) -> int:
        return 0 if self.bias is None else self.out_features

    def forward(self, inputs: Tensor, source: Tensor | None = None) -> Tensor:
        """``(..., I) -> (..., O)``.

        Args:
            inputs: what the weights multiply.
            source: what the gates read, ``(..., I)``; by default the inputs. The pre-activations
                of the inputs keep the sign that a ReLU removes.

        Raises:
            ValueError: a gate is NaN or infinite.
        """
        flat, gates = self._flat(inputs, source)
        outputs = nn.functional.linear(flat, self.weight, self.bias)  # (B, O)

        if self.depth and self.training and self.mode != "straight_through":
            noise = self.noise * torch.randn_like(gates) if self.mode == "noisy" else 0.0
            outputs = outputs + self._all_nodes(flat, torch.sigmoid(gates + noise))
        elif self.depth:
            bits = gates > 0
            path = self._path(flat, bits)
            outputs = outputs + path
            if self.training and torch.is_grad_enabled():
                outputs = outputs + self._straight_through(flat, gates, bits, path)
        return outputs.reshape(*inputs.shape[:-1], self.out_features)

    def sample(
        self, inputs: Tensor, source: Tensor | None = None, generator: torch.Generator | None = None
    ) -> tuple[Tensor, Tensor]:
        """Draw the bits from their probabilities, for ``reinforce_loss``.

        Args:
            inputs: ``(..., I)``.
            source: as of ``forward``.
            generator: on the device of the inputs; None for torch's global one.

        Returns:
            tuple[Tensor, Tensor]: outputs ``(..., O)``, and log-probabilities ``(...,)`` of the
            bits drawn, through which the gates get their gradient.
        """
        flat, gates = self._flat(inputs, source)
        uniform = torch.rand(
            gates.shape, generator=generator, device=gates.device, dtype=gates.dtype
        )
        bits = uniform < torch.sigmoid(gates)  # (B, K)

        outputs = nn.functional.linear(flat, self.weight, self.bias)
        if self.depth:
            outputs = outputs + self._path(flat, bits)

        leading = inputs.shape[:-1]
        log_probabilities = log_probability(gates, bits).reshape(leading)
        return outputs.reshape(*leading, self.out_features), log_probabilities

    def penalty(self) -> Tensor:
        """Sum over the nodes below the root of 2^level times the squared Frobenius norm.

        A node at level j is visited by about 2^-j of the examples; the deeper, the stronger it is
        drawn to 0, that is to the matrix of its parent.
        """
        if not self.depth:
            return self.weight.new_zeros(())

        if self.rank is None:
            squares = self.nodes.square().sum((1, 2))  # (N,)
        else:
            squares = prefix_nodes.squared_norms(self.left, self.right)
        return (2.0 ** node_levels(self.depth).to(squares) * squares).sum()

    def _flat(self, inputs: Tensor, source: Tensor | None) -> tuple[Tensor, Tensor]:
        """Inputs ``(B, I)`` and gates ``(B, K)``."""
        flat = inputs.reshape(-1, self.in_features)
        read = flat if source is None else source.reshape(-1, self.in_features)
        if self.depth and self.gate == "linear":
            gates = nn.functional.linear(read, self.gate_weight, self.gate_bias)
        else:
            gates = read[:, : self.depth]

        refuse_nonfinite("gates", gates)
        return flat, gates

    def _path(self, inputs: Tensor, bits: Tensor) -> Tensor:
        """The hard form: ``(B, I), (B, K) -> (B, O)``."""
        if self.rank is None:
            return prefix_nodes.full_path(inputs, bits, self.nodes)
        return prefix_nodes.low_rank_path(inputs, bits, self.left, self.right)

    def _all_nodes(self, inputs: Tensor, probabilities: Tensor) -> Tensor:
        """The soft form: ``(B, I), (B, K) -> (B, O)``."""
        reach = node_probabilities(probabilities)
        if self.rank is None:
            return prefix_nodes.full_mean(inputs, reach, self.nodes)
        return prefix_nodes.low_rank_mean(inputs, reach, self.left, self.right)

    def _straight_through(
        self, inputs: Tensor, gates: Tensor, bits: Tensor, path: Tensor
    ) -> Tensor:
        """Zero, with the gradient of the gates, ``(B, O)``.

        The soft form is linear in every bit, so that a flip of the bit tells its slope.
        """
        one_bit = torch.eye(self.depth, dtype=torch.bool, device=bits.device)
        flipped = bits.unsqueeze(1) ^ one_bit  # (B, K, K)
        repeated = inputs.unsqueeze(1).expand(-1, self.depth, -1).flatten(0, 1)  # (B * K, I)
        others = self._path(repeated, flipped.flatten(0, 1)).unflatten(0, (-1, self.depth))

        signs = torch.where(bits, 1.0, -1.0).to(path).unsqueeze(-1)  # (B, K, 1)
        slopes = signs * (path.unsqueeze(1) - others)  # (B, K, O)
        probabilities = torch.sigmoid(gates)
        zeros = probabilities - probabilities.detach()
        return (zeros.unsqueeze(1) @ slopes).squeeze(1)


def _check(
    in_features: int,
    out_features: int,
    depth: int,
    rank: int | None,
    gate: str,
    mode: str,
    noise: float,
) -> None:
    check_sizes(in_features=in_features, out_features=out_features)
    if depth < 0:
        raise ValueError(f"depth must not be negative, got {depth}.")

    full_rank = min(in_features, out_features)
    if rank is not None and not 1 <= rank <= full_rank:
        raise ValueError(
            f"rank must be between 1 and min(in_features, out_features) = {full_rank}, got {rank}."
        )

    if gate not in GATES:
        raise ValueError(f"gate must be one of {', '.join(GATES)}, got {gate!r}.")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    if gate == "sign" and depth > in_features:
        raise ValueError(
            "sign gates need a feature for each bit: "
            f"depth must be at most {in_features}, got {depth}."
        )
    if noise < 0:
        raise ValueError(f"noise must not be negative, got {noise}.")
