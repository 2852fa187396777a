"""Dropout of every kind, from keyed draws; the arguments are those of torch."""

import torch
from torch import Tensor

from tasks.keyed.draws import Draws

FLOOR = -1.7580993408473766  # what alpha dropout puts in: the least value of SELU


def dropout(draws: Draws, input: Tensor, p: float, train: bool) -> Tensor:
    """One draw for each entry."""
    return _drop(draws, input, p, train, input.shape)


def feature_dropout(draws: Draws, input: Tensor, p: float, train: bool) -> Tensor:
    """One draw for each map of ``(batch, channels, ...)``."""
    return _drop(draws, input, p, train, _maps_of(input))


def alpha_dropout(draws: Draws, input: Tensor, p: float, train: bool) -> Tensor:
    """One draw for each entry; mean 0 and variance 1 under SELU stay."""
    return _alpha_drop(draws, input, p, train, input.shape)


def feature_alpha_dropout(draws: Draws, input: Tensor, p: float, train: bool) -> Tensor:
    """``alpha_dropout`` with one draw for each map."""
    return _alpha_drop(draws, input, p, train, _maps_of(input))


def _maps_of(input: Tensor) -> tuple[int, ...]:
    return (*input.shape[:2], *[1] * (input.ndim - 2))


def _drop(draws: Draws, input: Tensor, p: float, train: bool, shape: tuple[int, ...]) -> Tensor:
    """Zeros where nothing is kept; what is kept grows by as much as is lost."""
    if not train or p == 0:
        return input
    if p == 1:
        return input * 0.0

    kept = draws.kept(p, shape)
    return input if kept is None else input * (kept / (1 - p)).to(input.dtype)


def _alpha_drop(
    draws: Draws, input: Tensor, p: float, train: bool, shape: tuple[int, ...]
) -> Tensor:
    """Source: Klambauer et al. 2017 (arXiv 1706.02515), section 2."""
    if not train or p == 0:
        return input
    if p == 1:
        return input * 0.0

    kept = draws.kept(p, shape)
    if kept is None:
        return input
    scale = ((1 - p) * (1 + p * FLOOR**2)) ** -0.5
    shift = -scale * p * FLOOR
    return torch.where(kept, input, FLOOR) * scale + shift
