"""A graph network on the pixels of digits: every pixel is a node, its neighbours are fixed.

Source: Kipf & Welling 2017 (arXiv 1609.02907), whose layers these are.

Legend: B batch, N nodes, F features.
"""

import networkx
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tasks import ModuleTask
from tasks.data.embedded import digits

SIDE = 8  # pixels


def normalised_adjacency(graph: networkx.Graph) -> Tensor:
    """``D^-1/2 (A + I) D^-1/2``, (N, N)."""
    adjacency = torch.tensor(networkx.to_numpy_array(graph), dtype=torch.float32)
    adjacency = adjacency + torch.eye(len(adjacency))
    scale = adjacency.sum(1).rsqrt()
    return scale[:, None] * adjacency * scale


class GraphConvolution(nn.Module):
    """Means over neighbours, and then a linear layer."""

    def __init__(self, inputs: int, outputs: int, adjacency: Tensor) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs)
        self.register_buffer("adjacency", adjacency)

    def forward(self, nodes: Tensor) -> Tensor:
        """``(B, N, F) -> (B, N, F)``."""
        return self.adjacency @ self.linear(nodes)


class GCN(nn.Module):
    """Three graph convolutions, the mean over nodes, and a linear classifier."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        adjacency = normalised_adjacency(networkx.grid_2d_graph(SIDE, SIDE))
        rows = torch.linspace(-1, 1, SIDE)
        self.register_buffer("positions", torch.cartesian_prod(rows, rows))  # (N, 2)
        self.first = GraphConvolution(3, width, adjacency)
        self.second = GraphConvolution(width, width, adjacency)
        self.third = GraphConvolution(width, width, adjacency)
        self.head = nn.Linear(width, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Images ``(B, 1, SIDE, SIDE)`` to logits ``(B, 10)``."""
        positions = self.positions.expand(len(images), -1, -1)
        nodes = torch.cat([images.flatten(2).mT, positions], dim=2)  # (B, N, 3)
        nodes = torch.relu(self.first(nodes))
        nodes = torch.relu(self.second(nodes))
        nodes = torch.relu(self.third(nodes))
        return self.head(nodes.mean(1))


def make_task(root: str | None = None) -> ModuleTask:
    """Classification of digits.

    Args:
        root: not used, digits come with scikit-learn.
    """
    del root
    return ModuleTask(GCN, cross_entropy, digits(), batch_size=32, name="gnn")
