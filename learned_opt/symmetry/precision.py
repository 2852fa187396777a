"""Modules in float64, and what they make themselves too."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


@contextmanager
def double_by_default() -> Iterator[None]:
    """Tensors that a forward makes without naming a type, as ``torch.zeros(3)``, get float64.

    >>> with double_by_default():
    ...     torch.zeros(3).dtype
    torch.float64
    """
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


def double(tensor: Tensor) -> Tensor:
    """A copy in float64; tensors of integers stay what they are."""
    return tensor.detach().double().clone() if tensor.is_floating_point() else tensor


def unchanged(tensor: Tensor) -> Tensor:
    """A copy in the tensor's type."""
    return tensor.detach().clone()
