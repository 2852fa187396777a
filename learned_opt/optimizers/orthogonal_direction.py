"""Muon's direction: a momentum with its singular values set to about 1."""

from math import sqrt

import torch
from torch import Tensor

from learned_opt.optimizers.linear_algebra import orthogonalise


def orthogonal_direction(
    momentum: Tensor, num_pieces: int = 1, row_limit: float | None = None
) -> Tensor:
    """A momentum with singular values of about 1, scaled to entries of order one.

    Args:
        momentum: of two axes or more; further axes count as the second.
        num_pieces: matrices that are stacked along the first axis, each with its own direction.
        row_limit: largest root mean square of a row; None for no limit.

    Returns:
        Tensor: of the shape of the momentum.

    >>> orthogonal_direction(torch.diag(torch.tensor([3.0, 5.0]))).abs().amax() < 2
    tensor(True)
    """
    parts = momentum.flatten(1).chunk(num_pieces)
    matrices = [_of_matrix(part, row_limit) for part in parts]
    joined = torch.cat(matrices) if len(matrices) > 1 else matrices[0]
    return joined.reshape(momentum.shape)


def _of_matrix(momentum: Tensor, row_limit: float | None) -> Tensor:
    matrix = sqrt(max(momentum.shape)) * orthogonalise(momentum)
    if row_limit is None:
        return matrix

    # 1 for a row that is short enough
    lengths = torch.linalg.vector_norm(matrix, dim=1, keepdim=True) / sqrt(matrix.shape[1])
    return matrix * (row_limit / lengths.clamp(min=row_limit))
