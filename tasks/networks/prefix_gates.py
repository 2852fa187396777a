"""Gating bits, and the nodes of a binary tree whose nodes are the prefixes of the bits.

Nodes but the root are numbered level by level: the node of prefix (b_1, ..., b_j) is 2^j - 2 plus
the prefix read as a binary number.

Legend: B examples, K bits, N = 2^(K+1) - 2 nodes without the root.
"""

import torch
from torch import Tensor
from torch.nn import functional


def num_nodes(depth: int) -> int:
    """Nodes below the root of a complete tree."""
    return 2 ** (depth + 1) - 2


def node_indices(bits: Tensor) -> Tensor:
    """The path of each code: booleans ``(..., K)`` -> nodes ``(..., K)``, level 1 to K.

    >>> node_indices(torch.tensor([True, False])).tolist()
    [1, 4]
    """
    level = torch.arange(bits.shape[-1], device=bits.device)
    behind = level - level.unsqueeze(-1)  # how many bits of the prefix follow bit i at level j
    powers = torch.where(behind >= 0, 2 ** behind.clamp(min=0), 0)  # (K, K)
    first_of_level = 2 ** (level + 1) - 2
    return first_of_level + (bits.long().unsqueeze(-1) * powers).sum(-2)


def node_levels(depth: int) -> Tensor:
    """Level of each node, ``(N,)``."""
    levels = torch.arange(1, depth + 1)
    return levels.repeat_interleave(2**levels)


def node_probabilities(probabilities: Tensor) -> Tensor:
    """Probability of reaching each node.

    Args:
        probabilities: ``(B, K)`` of each bit being 1.

    Returns:
        Tensor: ``(B, N)``.
    """
    reach = torch.ones_like(probabilities[:, :1])
    levels = []
    for bit in probabilities.split(1, dim=1):  # (B, 1)
        reach = torch.stack([reach * (1 - bit), reach * bit], dim=-1).flatten(1)  # (B, 2^level)
        levels.append(reach)
    return torch.cat(levels, dim=1)


def log_probability(gates: Tensor, bits: Tensor) -> Tensor:
    """Logarithm of P(bits), for independent bits with P(1) = sigmoid(gate).

    ``(B, K), (B, K) -> (B,)``.
    """
    return -functional.softplus(torch.where(bits, -gates, gates)).sum(-1)


def reinforce_loss(losses: Tensor, log_probabilities: Tensor) -> Tensor:
    """Mean loss whose gradient has the score-function term of the sampled bits.

    The baseline of an example is the mean loss of the others, which leaves the gradient unbiased.

    Args:
        losses: ``(B,)`` one loss for each example, at least two.
        log_probabilities: ``(B,)`` of the bits that each example used, as
            ``PrefixTreeLinear.sample`` returns them.

    Returns:
        Tensor: scalar, of which only the gradient means something.

    Raises:
        ValueError: there are fewer than two examples.

    Source: Williams 1992; for gating bits Bengio et al. 2013 (arXiv 1308.3432), whose baseline is
    another.
    """
    if len(losses) < 2:
        raise ValueError(f"the baseline of REINFORCE needs at least 2 examples, got {len(losses)}.")

    fixed = losses.detach()
    baseline = (fixed.sum() - fixed) / (len(losses) - 1)
    score_term = ((fixed - baseline) * log_probabilities).mean()
    return losses.mean() + score_term
