"""Conditional computation with a prefix tree: a linear layer with 2^K weight matrices at the cost of K + 1 small ones.

Legend: B examples, K gating bits (depth of the tree), N nodes below the root, R rank of a node, I inputs, O outputs.
"""

from collections.abc import Sequence
from itertools import pairwise
from math import prod, sqrt

import torch
from torch import Tensor, nn

from tasks.networks.base import Network, check_sizes
from tasks.networks.dispatch import dispatch, refuse_nonfinite
from tasks.networks.prefix_gates import (
    log_probability,
    node_indices,
    node_levels,
    node_probabilities,
    num_nodes,
)

GATES = ("linear", "sign")
MODES = ("straight_through", "soft", "noisy")


class PrefixTreeLinear(nn.Module):
    """Linear layer whose weight depends on K gating bits: the sum of one matrix for each prefix of the bits.

    ``W(b) = U_() + U_(b1) + U_(b1 b2) + ... + U_(b1 ... bK)``, bit b_j = [gate_j > 0]. A forward pass touches K + 1 of
    the 2^(K+1) - 1 matrices for each example. In training, the mode says how the gates get a gradient:

    * ``straight_through``: the hard bits forward; backward, the exact derivative of the soft form at those bits times
      that of the sigmoid (K further paths, each with one bit flipped).
    * ``soft``: every node, weighted by its probability; equal to the hard form where the gates are saturated.
    * ``noisy``: soft, with Gaussian noise on the gates, which drives them to saturate.

    The fourth way, REINFORCE, needs the loss: see ``sample``. In evaluation all modes are hard.

    Args:
        in_features: I.
        out_features: O.
        depth: K; 0 is a plain linear layer.
        rank: nodes below the root are products of an (O, rank) and a (rank, I) matrix; None for full matrices.
        gate: ``linear`` gives each bit weights of its own; ``sign`` takes the leading K features of the source.
        mode: how gates are trained.
        bias: add a learned vector, as ``nn.Linear`` does.
        noise: standard deviation of the noise of ``noisy``, in units of the gates.

    Raises:
        ValueError: a value is out of its range.

    Source: Cho & Bengio 2014 (arXiv 1406.7362), from the abstract's definition: the rank, the straight-through rule
    and the initialisation are ours.
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
        self.in_features, self.out_features, self.depth, self.rank = (
            in_features,
            out_features,
            depth,
            rank,
        )
        self.gate, self.mode, self.noise = gate, mode, noise
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
        """Standard deviation at the start: W(b) of every code has entries of variance 2 / I, biases are 0."""
        share = 2 / (self.depth + 1)
        variances = {"weight": share / self.in_features, "nodes": share / self.in_features}
        variances |= {
            "left": share / (self.rank or 1),
            "right": 1 / self.in_features,
            "gate_weight": 1 / self.in_features,
        }
        return sqrt(variances.get(name, 0.0))

    @property
    def multiply_adds(self) -> int:
        """Of one example in the hard form, gates included."""
        return (
            self.active_parameters - self.out_features * (self.bias is not None) - self._own_gates
        )

    @property
    def active_parameters(self) -> int:
        """Parameters that one example touches in the hard form."""
        node = self.out_features * self.in_features
        small = node if self.rank is None else self.rank * (self.out_features + self.in_features)
        gates = self._own_gates * (self.in_features + 1)
        return node + self.depth * small + gates + self.out_features * (self.bias is not None)

    @property
    def _own_gates(self) -> int:
        return self.depth if self.gate == "linear" else 0

    def forward(self, inputs: Tensor, source: Tensor | None = None) -> Tensor:
        """``(..., I) -> (..., O)``.

        Args:
            inputs: what the weights multiply.
            source: what the gates read, ``(..., I)``; by default the inputs. The pre-activations of the inputs keep
                the sign that a ReLU removes.

        Raises:
            ValueError: a gate is NaN or infinite.
        """
        flat, gates = self._flat(inputs, source)
        outputs = nn.functional.linear(flat, self.weight, self.bias)
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

        Returns:
            tuple[Tensor, Tensor]: outputs ``(..., O)``, and log-probabilities ``(...,)`` of the bits drawn, through
            which the gates get their gradient.
        """
        flat, gates = self._flat(inputs, source)
        probabilities = torch.sigmoid(gates)
        drawn = torch.rand(gates.shape, generator=generator, device=gates.device, dtype=gates.dtype)
        bits = drawn < probabilities
        outputs = nn.functional.linear(flat, self.weight, self.bias)
        outputs = outputs + self._path(flat, bits) if self.depth else outputs
        leading = inputs.shape[:-1]
        return outputs.reshape(*leading, self.out_features), log_probability(gates, bits).reshape(
            leading
        )

    def penalty(self) -> Tensor:
        """Sum over the nodes below the root of 2^level times the squared Frobenius norm of the node's matrix.

        A node at level j is visited by about 2^-j of the examples; the deeper, the stronger it is drawn to 0, that is
        to the matrix of its parent.
        """
        if not self.depth:
            return self.weight.new_zeros(())
        if self.rank is None:
            squares = self.nodes.square().sum((1, 2))
        else:
            squares = ((self.left @ self.left.mT) * (self.right @ self.right.mT)).sum((1, 2))
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
        """What the nodes on each example's path add: ``(B, I), (B, K) -> (B, O)``."""
        nodes = node_indices(bits)
        if self.rank is not None:
            right, left = (
                self._gather(factor, nodes) for factor in (self.right, self.left)
            )  # (B, K * R, I or O)
            return ((inputs.unsqueeze(1) @ right.mT) @ left).squeeze(
                1
            )  # as rows: several times faster than as columns
        outputs = inputs.new_zeros(len(inputs), self.out_features)
        for level in nodes.unbind(1):
            groups = dispatch(level, inputs, self.nodes)
            outputs = outputs + groups.combine(groups.pack(inputs) @ self.nodes[groups.used].mT)
        return outputs

    def _gather(self, factor: Tensor, nodes: Tensor) -> Tensor:
        """Factors of the nodes on each path: ``(N, R, n), (B, K) -> (B, K * R, n)``."""
        rows = factor.index_select(
            0, nodes.flatten()
        )  # copies whole rows, which plain indexing does not
        return rows.view(len(nodes), -1, factor.shape[-1])

    def _all_nodes(self, inputs: Tensor, probabilities: Tensor) -> Tensor:
        """The soft form: ``(B, I), (B, K) -> (B, O)``."""
        reach = node_probabilities(probabilities)
        if self.rank is not None:
            inner = (inputs @ self.right.flatten(0, 1).mT).unflatten(
                1, (-1, self.rank)
            )  # (B, N, R)
            return (inner * reach.unsqueeze(-1)).flatten(1) @ self.left.flatten(0, 1)
        outputs = torch.einsum("noi,bi->bno", self.nodes, inputs)
        return (reach.unsqueeze(1) @ outputs).squeeze(1)

    def _straight_through(
        self, inputs: Tensor, gates: Tensor, bits: Tensor, path: Tensor
    ) -> Tensor:
        """Zero, with the gradient of the gates: the soft form is linear in every bit, so a flip tells its slope."""
        flipped = bits.unsqueeze(1) ^ torch.eye(
            self.depth, dtype=torch.bool, device=bits.device
        )  # (B, K, K)
        repeated = inputs.unsqueeze(1).expand(-1, self.depth, -1).flatten(0, 1)
        others = self._path(repeated, flipped.flatten(0, 1)).unflatten(
            0, (-1, self.depth)
        )  # (B, K, O)
        slopes = torch.where(bits, 1.0, -1.0).to(path).unsqueeze(-1) * (path.unsqueeze(1) - others)
        probabilities = torch.sigmoid(gates)
        return ((probabilities - probabilities.detach()).unsqueeze(1) @ slopes).squeeze(1)


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
    if rank is not None and not 1 <= rank <= min(in_features, out_features):
        limit = min(in_features, out_features)
        raise ValueError(
            f"rank must be between 1 and min(in_features, out_features) = {limit}, got {rank}."
        )
    if gate not in GATES:
        raise ValueError(f"gate must be one of {', '.join(GATES)}, got {gate!r}.")
    if mode not in MODES:
        raise ValueError(f"mode must be one of {', '.join(MODES)}, got {mode!r}.")
    if gate == "sign" and depth > in_features:
        raise ValueError(
            f"sign gates need a feature for each bit: depth must be at most {in_features}, got {depth}."
        )
    if noise < 0:
        raise ValueError(f"noise must not be negative, got {noise}.")


class PrefixTreeMLP(Network):
    """Linear layer, then prefix-tree layers gated by the hidden units before them, ReLU between.

    Args:
        input_shape: shape of one example.
        num_outputs: outputs, e.g. classes.
        hidden_sizes: widths of the hidden layers, at least one.
        depth: gating bits of each prefix-tree layer.
        rank: rank of its nodes, None for full matrices.
        gate: ``linear`` or ``sign``.
        mode: ``straight_through`` or ``soft``; the inner loop draws no noise inside of a step.
    """

    def __init__(
        self,
        input_shape: Sequence[int],
        num_outputs: int,
        hidden_sizes: Sequence[int] = (32,),
        depth: int = 3,
        rank: int | None = 2,
        gate: str = "linear",
        mode: str = "straight_through",
    ) -> None:
        super().__init__()
        check_sizes(
            num_outputs=num_outputs,
            **{f"hidden_sizes[{i}]": size for i, size in enumerate(hidden_sizes)},
        )
        if not hidden_sizes:
            raise ValueError(
                "hidden_sizes must hold at least one width, whose units gate the next layer, got none."
            )
        if mode == "noisy":
            raise ValueError(
                "mode must be straight_through or soft in an inner network, got 'noisy'."
            )
        self.embed = nn.Linear(prod(input_shape), hidden_sizes[0])
        self.layers = nn.ModuleList(
            PrefixTreeLinear(*pair, depth, rank, gate, mode)
            for pair in pairwise([*hidden_sizes, num_outputs])
        )

    def forward(self, inputs: Tensor) -> Tensor:
        """``(B, *input_shape) -> (B, num_outputs)``."""
        hidden = self.embed(inputs.flatten(1))
        for layer in self.layers:
            hidden = layer(hidden.relu(), source=hidden)
        return hidden

    def init_parameter(self, name: str, parameter: Tensor, generator: torch.Generator) -> Tensor:
        """As ``Network.draw``, the prefix-tree layers at their own scale."""
        owner, _, leaf = name.rpartition(".")
        layer = self.get_submodule(owner)
        if isinstance(layer, PrefixTreeLinear):
            return torch.randn(parameter.shape, generator=generator) * layer.initial_std(leaf)
        return super().init_parameter(name, parameter, generator)
