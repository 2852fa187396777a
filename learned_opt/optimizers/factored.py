"""Second moments of which row and column means are kept.

Source: Shazeer & Stern 2018 (Adafactor, arXiv 1804.04235), section 3.
"""

import torch
from torch import Tensor

from learned_opt.optimizers.features import ema

Axes = tuple[int, int] | None  # the factored pair of a tensor, None for a vector


def longest_axes(tensor: Tensor) -> Axes:
    """The longest axis, over which rows are averaged, and the next longest; of equals the last.

    None for a vector or a scalar.
    """
    if tensor.ndim < 2:
        return None
    order = sorted(range(tensor.ndim), key=lambda axis: tensor.shape[axis])
    return order[-1], order[-2]


def kernel_axes(tensor: Tensor) -> Axes:
    """The longest axis and the next longest; of equals those that JAX's libraries would take.

    They store the same kernel as positions, in, out, and of equals take the last; ours is out, in,
    positions.

    >>> kernel_axes(torch.zeros(8, 8)), kernel_axes(torch.zeros(5, 3, 3, 3))
    ((0, 1), (0, 1))
    """
    if tensor.ndim < 2:
        return None
    theirs = [*range(2, tensor.ndim), 1, 0]
    order = sorted(theirs, key=lambda axis: tensor.shape[axis])
    return order[-1], order[-2]


def factored_shapes(param: Tensor) -> tuple[list[int], list[int]]:
    """Shapes of the row means and of the column means."""
    return shapes_without(param, longest_axes(param))


def shapes_without(param: Tensor, longest: Axes) -> tuple[list[int], list[int]]:
    """Shapes of means over one axis of a pair, and over the other; without one the tensor's."""
    row_shape = list(param.shape)
    column_shape = list(param.shape)
    if longest is not None:
        row_shape[longest[0]] = 1
        column_shape[longest[1]] = 1
    return row_shape, column_shape


def row_and_column_means(squares: Tensor) -> tuple[Tensor, Tensor]:
    """Means of ``(*shape,)`` over the longest axis and over the next; of a vector itself, twice."""
    longest = longest_axes(squares)
    if longest is None:
        return squares, squares
    return squares.mean(longest[0], keepdim=True), squares.mean(longest[1], keepdim=True)


def outer_product(rows: Tensor, columns: Tensor, like: Tensor) -> Tensor:
    """The second moments that row and column means stand for.

    Args:
        rows: ``(D, *shape)`` but for a 1 in the place of the longest axis.
        columns: ``(D, *shape)`` but for a 1 in the place of the next.
        like: ``(*shape,)``.

    Returns:
        Tensor: ``(D, *shape)``, zero where nothing but zeros was seen.
    """
    longest = longest_axes(like)
    if longest is None:
        return rows

    mean = rows.mean(1 + longest[1], keepdim=True)  # that of all entries
    return rows * (columns / mean.clamp_min(1e-30))


def moved_means(
    rows: Tensor, columns: Tensor, squares: Tensor, decays: Tensor, longest: Axes
) -> tuple[Tensor, Tensor]:
    """Averages over time of row and column means, moved towards new squares.

    Args:
        rows: ``(D, *shape)`` but for a 1 in the place of the first of the pair.
        columns: ``(D, *shape)`` but for a 1 in the place of the second.
        squares: ``(*shape,)``.
        decays: ``(D, 1, ..., 1)``.
        longest: the pair; None for a vector, whose whole second moment both keep.
    """
    row_means = column_means = squares + 1e-30
    if longest is not None:
        row_means = row_means.mean(longest[0], keepdim=True)
        column_means = column_means.mean(longest[1], keepdim=True)
    return ema(rows, row_means, decays), ema(columns, column_means, decays)


def inverse_root(rows: Tensor, columns: Tensor, longest: Axes) -> Tensor:
    """One over the root of the second moments that row and column means stand for.

    Args:
        rows: as of ``moved_means``; of a vector the whole second moment.
        columns: likewise.
        longest: the pair.
    """
    if longest is None:
        return _bounded_rsqrt(rows + 1e-9)
    mean = rows.mean(1 + longest[1], keepdim=True)  # that of all entries
    return _bounded_rsqrt(rows / (mean + 1e-9)) * _bounded_rsqrt(columns)


def _bounded_rsqrt(tensor: Tensor) -> Tensor:
    return torch.rsqrt(tensor.clamp_min(1e-9))
