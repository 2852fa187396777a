"""Parameters of 16 bits: state and arithmetic in float32, and a float32 copy of the weights.

Steps of a thousandth of a weight are lost in the 8 bits that bfloat16 has for it. The copy costs
4 bytes a weight and gives the steps of float32. Stochastic rounding, which costs nothing, has a
noise that the copy has not: docs/deployment.md has the measurement.
"""

from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any

import torch
from torch import Tensor

MASTER = "master"  # of the state of a parameter: its float32 copy
HALF = (torch.float16, torch.bfloat16)
TYPES = (torch.float32, torch.float64, *HALF)


def arithmetic_type(types: Iterable[torch.dtype]) -> torch.dtype:
    """The type in which parameters of these types are advanced together.

    >>> arithmetic_type([torch.bfloat16, torch.float32])
    torch.float32
    """
    return torch.float64 if torch.float64 in types else torch.float32


def moving_copy(param: Tensor, state: Mapping[str, Any], dtype: torch.dtype) -> Tensor:
    """What a step moves in place: the parameter itself, or its copy in the type of the arithmetic.

    Args:
        param: the parameter, detached.
        state: of it, which may hold its copy.
        dtype: of the arithmetic.
    """
    if param.dtype == dtype:
        return param
    copy = param.to(dtype)
    if MASTER not in state:
        return copy
    # where somebody else has moved the parameter, the copy follows
    master = state[MASTER].to(dtype)
    return torch.where(master.to(param.dtype) == param, master, copy)


def write_back(param: Tensor, copy: Tensor, state: MutableMapping[str, Any]) -> None:
    """Round what a step has moved to the parameter, and keep it where bits are lost."""
    if copy is param:
        return
    param.copy_(copy)
    if param.dtype in HALF:
        state[MASTER] = copy
