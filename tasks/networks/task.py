"""What the tasks of one network on one data set share."""

import torch

from tasks.base import Params, PermutationAxes, TaskFamily, TaskParams
from tasks.networks.base import Network


class NetworkTask(TaskFamily):
    """A family of one task, whose parameters are a network's.

    Args:
        name: name of the task in reports.
        network: the inner network.
        batch_size: examples in a batch.

    Raises:
        ValueError: the batch size is not positive.
    """

    def __init__(self, name: str, network: Network, batch_size: int) -> None:
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, got {batch_size}.")
        self.name, self.network, self.batch_size = name, network, batch_size

    def sample(self, generator: torch.Generator) -> TaskParams:
        """One task only."""
        return {}

    def init(self, generator: torch.Generator, task: TaskParams) -> Params:
        """The network's initial parameters."""
        return self.network.init(generator)

    def permutation_axes(self) -> PermutationAxes | None:
        """The network's."""
        return self.network.permutation_axes()
