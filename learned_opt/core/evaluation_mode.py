"""A module of somebody else's, run in evaluation mode and left as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluation_mode(module: nn.Module) -> Iterator[None]:
    """Every part of a module in evaluation mode, and afterwards each in the mode that it had.

    A module may hold parts in another mode than its own, such as batch norms that are frozen. The
    random state of the CPU is restored, too: what is run inside may draw from it.

    Args:
        module: of any mode.

    >>> module = nn.Sequential(nn.Linear(1, 1), nn.BatchNorm1d(1).eval())
    >>> with evaluation_mode(module):
    ...     print(module.training)
    False
    >>> [part.training for part in module.modules()]
    [True, True, False]
    """
    modes = {part: part.training for part in module.modules()}
    with torch.random.fork_rng(devices=()):
        module.eval()
        try:
            yield
        finally:
            for part, is_training in modes.items():
                part.training = is_training
