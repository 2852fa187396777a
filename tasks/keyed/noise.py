"""Uniform, normal and other noise, from keyed draws; the arguments are those of torch.

Where there is no key, every number is the mean of its distribution.
"""

from typing import Any

import torch
from torch import Tensor

from tasks.keyed.draws import Draws


def rand(draws: Draws, *size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """``torch.rand``."""
    return draws.uniform(_shape(size, options)).to(dtype or torch.get_default_dtype())


def randn(draws: Draws, *size: Any, dtype: Any = None, **options: Any) -> Tensor:
    """``torch.randn``."""
    return draws.normal(_shape(size, options)).to(dtype or torch.get_default_dtype())


def rand_like(draws: Draws, input: Tensor, dtype: Any = None, **_: Any) -> Tensor:
    """``torch.rand_like``."""
    return draws.uniform(input.shape).to(dtype or input.dtype)


def randn_like(draws: Draws, input: Tensor, dtype: Any = None, **_: Any) -> Tensor:
    """``torch.randn_like``."""
    return draws.normal(input.shape).to(dtype or input.dtype)


def normal(draws: Draws, mean: Any, std: Any = 1.0, size: Any = None, **_: Any) -> Tensor:
    """``torch.normal``."""
    if size is None:
        shapes = [torch.as_tensor(value).shape for value in (mean, std)]
        size = torch.broadcast_shapes(*shapes)
    return draws.normal(tuple(size)) * std + mean


def bernoulli(draws: Draws, input: Tensor, p: float | None = None, **_: Any) -> Tensor:
    """``torch.bernoulli``; the entries are probabilities where p is None."""
    chances = input if p is None else torch.full_like(input, p)
    numbers = draws.uniform(input.shape)
    return chances.clone() if draws.key is None else (numbers < chances).to(input.dtype)


def bernoulli_(draws: Draws, input: Tensor, p: Any = 0.5, **_: Any) -> Tensor:
    """``Tensor.bernoulli_``."""
    numbers = draws.uniform(input.shape)
    return input.copy_(torch.full_like(numbers, p) if draws.key is None else numbers < p)


def normal_(draws: Draws, input: Tensor, mean: Any = 0.0, std: Any = 1.0, **_: Any) -> Tensor:
    """``Tensor.normal_``."""
    return input.copy_(draws.normal(input.shape) * std + mean)


def uniform_(draws: Draws, input: Tensor, low: Any = 0.0, high: Any = 1.0, **_: Any) -> Tensor:
    """``Tensor.uniform_(from, to)``."""
    return input.copy_(draws.uniform(input.shape) * (high - low) + low)


def exponential_(draws: Draws, input: Tensor, lambd: Any = 1.0, **_: Any) -> Tensor:
    """``Tensor.exponential_``."""
    numbers = draws.uniform(input.shape)
    waits = torch.ones_like(numbers) if draws.key is None else -torch.log1p(-numbers)
    return input.copy_(waits / lambd)


def empty(draws: Draws, *size: Any, **options: Any) -> Tensor:
    """``torch.empty``, whose entries one of the above may fill.

    It depends on the key, so that under vmap there is one for each chain.
    """
    options.pop("memory_format", None)
    zeros = torch.zeros(*size, **options)
    if draws.key is None or not zeros.is_floating_point():
        return zeros
    return zeros + (draws.key * 0).to(zeros.dtype)


def _shape(size: tuple[Any, ...], options: dict[str, Any]) -> tuple[int, ...]:
    """A size as torch takes it: numbers, or one sequence."""
    sizes = size or (options["size"],)
    return tuple(sizes) if isinstance(sizes[0], int) else tuple(sizes[0])
