"""Coefficients of layers: as entries of a ParameterDict, and as a kernel reads them."""

from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from learned_opt.unf.plan import Plan


class Coefficients(NamedTuple):
    """All that an equivariant layer multiplies with and adds.

    Args:
        plan: of the layer.
        groups: ``(K, C_in, D, C_out)`` for each group of the plan.
        biases: ``(C_out,)`` for each tensor of the spec; none where the layer has no bias.
    """

    plan: Plan
    groups: list[Tensor]
    biases: list[Tensor]


def weight_key(signature: tuple[str, ...]) -> str:
    """The key of a group's coefficients in a ParameterDict.

    >>> weight_key(("0.weight[0]", "pixel"))
    '(0/weight[0],pixel)'
    """
    return f"({','.join(map(escape, signature))})"


def escape(name: str) -> str:
    r"""A name as a key of a ParameterDict, which may hold no dots; no two names share a key.

    >>> escape("0.weight"), escape("a,b")
    ('0/weight', 'a\\,b')
    """
    # commas separate names within a key
    for letter in ("\\", "/", ","):
        name = name.replace(letter, "\\" + letter)
    return name.replace(".", "/")


def zero_biases(num_folds: Mapping[str, int], channels: int) -> nn.ParameterDict:
    """One bias ``(F C_out,)`` of zeros for each tensor, F the number of its folded indices."""
    biases = {}
    for name, folds in num_folds.items():
        biases[escape(name)] = nn.Parameter(torch.zeros(folds * channels))
    return nn.ParameterDict(biases)
