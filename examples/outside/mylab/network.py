"""A network as PyTorch users write it."""

import torch
from torch import Tensor, nn


class GatedNetwork(nn.Module):
    """One hidden layer whose units are switched by gates.

    Args:
        num_features: columns of the table.
        num_hidden: units of the hidden layer.
        num_classes: kinds to tell apart.
    """

    def __init__(self, num_features: int, num_hidden: int, num_classes: int) -> None:
        super().__init__()
        self.values = nn.Linear(num_features, num_hidden)
        self.gates = nn.Linear(num_features, num_hidden)
        self.readout = nn.Linear(num_hidden, num_classes)

    def forward(self, features: Tensor) -> Tensor:
        """Scores of the classes, ``(B, num_classes)``."""
        hidden = torch.tanh(self.values(features)) * torch.sigmoid(self.gates(features))
        return self.readout(hidden)
