"""Sums over the nodes of a prefix tree, whose matrices are full or products of two factors.

``path`` sums over the nodes that an example's bits lead through, ``mean`` over all of them,
weighted.

Legend: B examples, K bits, N nodes, R rank of a node, I inputs, O outputs.
"""

import torch
from torch import Tensor

from tasks.networks.dispatch import dispatch
from tasks.networks.prefix_gates import node_indices


def full_path(inputs: Tensor, bits: Tensor, nodes: Tensor) -> Tensor:
    """``(B, I)``, ``(B, K)`` and matrices ``(N, O, I)`` -> ``(B, O)``."""
    outputs = inputs.new_zeros(len(inputs), nodes.shape[1])
    for level in node_indices(bits).unbind(1):  # (B,)
        groups = dispatch(level, inputs, nodes)
        outputs = outputs + groups.combine(groups.pack(inputs) @ nodes[groups.used].mT)
    return outputs


def full_mean(inputs: Tensor, reach: Tensor, nodes: Tensor) -> Tensor:
    """``(B, I)``, weights ``(B, N)`` and matrices ``(N, O, I)`` -> ``(B, O)``."""
    outputs = torch.einsum("noi,bi->bno", nodes, inputs)
    return (reach.unsqueeze(1) @ outputs).squeeze(1)


def low_rank_path(inputs: Tensor, bits: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``(B, I)``, ``(B, K)``, factors ``(N, R, O)`` and ``(N, R, I)`` -> ``(B, O)``."""
    nodes = node_indices(bits)
    right_factors = _gather(right, nodes)  # (B, K * R, I)
    left_factors = _gather(left, nodes)  # (B, K * R, O)

    # as rows: several times faster than as columns
    inner = inputs.unsqueeze(1) @ right_factors.mT  # (B, 1, K * R)
    return (inner @ left_factors).squeeze(1)


def low_rank_mean(inputs: Tensor, reach: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """``(B, I)``, weights ``(B, N)``, factors ``(N, R, O)`` and ``(N, R, I)`` -> ``(B, O)``."""
    rank = right.shape[1]
    inner = (inputs @ right.flatten(0, 1).mT).unflatten(1, (-1, rank))  # (B, N, R)
    return (inner * reach.unsqueeze(-1)).flatten(1) @ left.flatten(0, 1)


def squared_norms(left: Tensor, right: Tensor) -> Tensor:
    """Squared Frobenius norms ``(N,)`` of the products of factors, without the products."""
    return ((left @ left.mT) * (right @ right.mT)).sum((1, 2))


def _gather(factor: Tensor, nodes: Tensor) -> Tensor:
    """Factors of the nodes on each path: ``(N, R, n), (B, K) -> (B, K * R, n)``."""
    # copies whole rows, which plain indexing does not
    rows = factor.index_select(0, nodes.flatten())
    return rows.view(len(nodes), -1, factor.shape[-1])
