"""Norms in operations of which those that read gain and bias are seen, alike on every device.

Torch's decomposition of group norm multiplies gains with statistics first where it is for the CPU,
so that there a gain would have a row for each example, elsewhere one for each position.
"""

from typing import Any

import torch
from torch import Tensor
from torch._decomp import get_decompositions

aten = torch.ops.aten


def norm_decompositions() -> dict[Any, Any]:
    """Operation -> function: norms of layers, groups and batches."""
    table = get_decompositions(
        [aten.native_layer_norm, aten._native_batch_norm_legit, aten.native_batch_norm]
    )
    no_training = get_decompositions([aten._native_batch_norm_legit_no_training])
    return {**table, **no_training, aten.native_group_norm.default: group_norm}


def group_norm(
    values: Tensor,
    gain: Tensor | None,
    bias: Tensor | None,
    num_examples: int,
    num_channels: int,
    num_positions: int,
    num_groups: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """``aten.native_group_norm``.

    Returns:
        tuple[Tensor, Tensor, Tensor]: the result, means and inverse deviations ``(B, groups)``.

    >>> values = torch.tensor([[[1.0, 3.0]], [[0.0, 0.0]]])
    >>> result, mean, _ = group_norm(values, torch.tensor([2.0]), None, 2, 1, 2, 1, 0.0)
    >>> result[0].tolist(), mean.tolist()
    ([[-2.0, 2.0]], [[2.0], [0.0]])
    """
    grouped = values.reshape(num_examples, num_groups, num_channels // num_groups * num_positions)
    var, mean = torch.var_mean(grouped, dim=2, unbiased=False, keepdim=True)
    rstd = torch.rsqrt(var + eps)
    result = ((grouped - mean) * rstd).reshape(values.shape)

    ones = [1] * (values.ndim - 2)
    if gain is not None:
        result = result * gain.reshape(-1, *ones)
    if bias is not None:
        result = result + bias.reshape(-1, *ones)
    return result, mean.squeeze(2), rstd.squeeze(2)
