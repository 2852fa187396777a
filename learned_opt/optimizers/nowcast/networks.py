"""Networks that predict scaled weights k snapshots ahead, from five snapshots of a training.

Names of their tensors are those of the authors' files.

Source: Knyazev et al. 2025 (arXiv 2409.04434) and the authors' code.

Legend: E edges (entries for the network without a graph), N nodes, H hidden units, P positions,
S = 5 snapshots, K = 40 steps ahead at most.
"""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn.functional import silu
from typing_extensions import override

from learned_opt.optimizers.nowcast.roles import NUM_ROLES
from learned_opt.optimizers.nowcast.weight_graph import WeightGraph

NUM_SNAPSHOTS = 5
FARTHEST = 40  # K
MAX_POSITIONS = 9  # of a kernel
NUM_COORDINATES = 8  # of a node; here 0, so that nothing tells nodes apart
BLOCK = 2**16  # edges that temporary memory is taken for at a time


class EntryNetwork(nn.Module):
    """Reads every weight by itself.

    Args:
        hidden_size: H.
    """

    def __init__(self, hidden_size: int = 32) -> None:
        super().__init__()
        self.edge_proj = _Stack(nn.Linear(NUM_SNAPSHOTS, hidden_size))
        self.layer_embed = nn.Embedding(NUM_ROLES, hidden_size)
        hidden = [nn.Linear(hidden_size, hidden_size) for _ in range(3)]
        self.edge_mlp = _Stack(*hidden, nn.Linear(hidden_size, FARTHEST))

    @override
    def forward(self, snapshots: Tensor, types: Tensor, steps: int | Tensor) -> Tensor:
        """Scaled weights ``(E,)`` that many steps ahead.

        Args:
            snapshots: scaled weights ``(E, S)``.
            types: roles ``(E,)``.
            steps: k, from 1 to 40, a number or a scalar.
        """
        outputs = self.edge_mlp.last
        weight = outputs.weight[steps - 1]
        bias = outputs.bias[steps - 1]

        moves = []
        for block in _blocks(len(snapshots)):
            hidden = self.edge_proj(snapshots[block]) + self.layer_embed(types[block])
            for layer in list(self.edge_mlp.fc)[:-1]:
                hidden = layer(hidden)
            moves.append(hidden @ weight + bias)
        return snapshots[:, -1] + torch.cat(moves)


class GraphNetwork(nn.Module):
    """Reads the graph of all weights; equivariant to permutations of neurons.

    Args:
        hidden_size: H.
    """

    def __init__(self, hidden_size: int = 128) -> None:
        super().__init__()
        self.node_proj = _Stack(nn.Linear(NUM_COORDINATES, hidden_size))
        self.edge_proj = _Stack(nn.Linear(MAX_POSITIONS * NUM_SNAPSHOTS, hidden_size))
        self.layer_embed = nn.Embedding(NUM_ROLES, hidden_size)
        self.gnn = _Messages(hidden_size, num_layers=2)
        outputs = nn.Linear(hidden_size, MAX_POSITIONS * FARTHEST)
        self.edge_out = _Stack(nn.Linear(hidden_size, hidden_size), outputs)

    @override
    def forward(
        self,
        attributes: Tensor,
        graph: WeightGraph,
        steps: int | Tensor,
        coordinates: Tensor | None = None,
    ) -> Tensor:
        """Moves of the scaled weights, ``(E, 9)``, that many steps ahead.

        Args:
            attributes: scaled weights ``(E, P S)``, see ``WeightGraph``.
            graph: whose edges they are of.
            steps: k, from 1 to 40.
            coordinates: of the nodes, ``(N, 8)``; None for 0, with which it is equivariant.
        """
        if coordinates is None:
            coordinates = attributes.new_zeros(graph.num_nodes, NUM_COORDINATES)
        nodes = self.node_proj(coordinates)

        # the columns of positions that no kernel of this model has are left out
        projection = self.edge_proj.first
        weight = projection.weight[:, : attributes.shape[1]]
        edges = nn.functional.linear(attributes, weight, projection.bias)
        edges = edges + self.layer_embed(graph.types)
        edges = self.gnn(nodes, edges, graph)

        outputs = self.edge_out.last
        rows = torch.arange(MAX_POSITIONS, device=edges.device) * FARTHEST + steps - 1
        hidden = silu(self.edge_out.first(edges))
        return nn.functional.linear(hidden, outputs.weight[rows], outputs.bias[rows])


class _Messages(nn.Module):
    """Rounds of messages: from edges and nodes to nodes, and back to edges.

    Args:
        hidden_size: H.
        num_layers: rounds.
    """

    def __init__(self, hidden_size: int, num_layers: int) -> None:
        super().__init__()
        self.convs = nn.ModuleList(_NodeUpdate(hidden_size) for _ in range(num_layers))
        self.edge_update = nn.ModuleList(_EdgeUpdate(hidden_size) for _ in range(num_layers))

    @override
    def forward(self, nodes: Tensor, edges: Tensor, graph: WeightGraph) -> Tensor:
        for to_nodes, to_edges in zip(self.convs, self.edge_update, strict=True):
            nodes = silu(to_nodes(nodes, edges, graph))
            edges = to_edges(nodes, edges, graph)
        return edges


class _NodeUpdate(nn.Module):
    """``lin(post([x, mean over arriving edges of scale pre([x, x of the source]) + shift]))``."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.edge_encoder = nn.Linear(hidden_size, 2 * hidden_size)
        self.pre_nns = _Nested(nn.Linear(2 * hidden_size, hidden_size))
        self.post_nns = _Nested(nn.Linear(2 * hidden_size, hidden_size))
        self.lin = nn.Linear(hidden_size, hidden_size)

    @override
    def forward(self, nodes: Tensor, edges: Tensor, graph: WeightGraph) -> Tensor:
        pre = self.pre_nns.layer
        # nodes are far fewer than edges, so they are multiplied before they are gathered
        of_target, of_source = pre.weight.chunk(2, 1)
        at_target = nodes @ of_target.T + pre.bias
        at_source = nodes @ of_source.T

        total = torch.zeros_like(nodes)
        for block in _blocks(len(edges)):
            targets = graph.targets[block]
            scale, shift = self.edge_encoder(edges[block]).chunk(2, -1)
            hidden = at_target[targets] + at_source[graph.sources[block]]
            total = total.index_add(0, targets, scale * hidden + shift)
        count = torch.bincount(graph.targets, minlength=graph.num_nodes)
        mean = total / count.clamp_min(1).unsqueeze(1).to(total)
        return self.lin(self.post_nns.layer(torch.cat([nodes, mean], 1)))


class _EdgeUpdate(nn.Module):
    """``lin1(silu(lin_e e + lin_s x_source + lin_t x_target))``."""

    def __init__(self, hidden_size: int) -> None:
        super().__init__()
        self.lin_e = nn.Linear(hidden_size, hidden_size)
        self.lin_s = nn.Linear(hidden_size, hidden_size)
        self.lin_t = nn.Linear(hidden_size, hidden_size)
        self.lin1 = nn.Linear(hidden_size, hidden_size)

    @override
    def forward(self, nodes: Tensor, edges: Tensor, graph: WeightGraph) -> Tensor:
        at_source = self.lin_s(nodes)
        at_target = self.lin_t(nodes)
        updated = []
        for block in _blocks(len(edges)):
            beside = at_source[graph.sources[block]] + at_target[graph.targets[block]]
            updated.append(self.lin1(silu(self.lin_e(edges[block]) + beside)))
        return torch.cat(updated)


class _Stack(nn.Module):
    """Linear layers with SiLU between them."""

    def __init__(self, *layers: nn.Linear) -> None:
        super().__init__()
        parts: list[nn.Module] = []
        for layer in layers:
            parts += [nn.SiLU(), layer] if parts else [layer]
        self.fc = nn.Sequential(*parts)

    @property
    def first(self) -> nn.Linear:
        layer = self.fc[0]
        assert isinstance(layer, nn.Linear)
        return layer

    @property
    def last(self) -> nn.Linear:
        layer = self.fc[-1]
        assert isinstance(layer, nn.Linear)
        return layer

    @override
    def forward(self, inputs: Tensor) -> Tensor:
        return self.fc(inputs)


class _Nested(nn.ModuleList):
    """One layer where the authors' program has a list of stacks, whose names its files have."""

    def __init__(self, layer: nn.Linear) -> None:
        super().__init__([nn.Sequential(layer)])

    @property
    def layer(self) -> nn.Linear:
        stack = self[0]
        assert isinstance(stack, nn.Sequential)
        layer = stack[0]
        assert isinstance(layer, nn.Linear)
        return layer


def _blocks(count: int) -> Iterator[slice]:
    for start in range(0, count, BLOCK):
        yield slice(start, start + BLOCK)
