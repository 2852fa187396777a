"""Gating bits and the nodes of a binary tree whose nodes are prefixes of the bits.

Nodes but the root are numbered level by level: the node of prefix (b_1, ..., b_j) is 2^j - 2 plus the prefix read as a
binary number. Legend: B examples, K bits, N = 2^(K+1) - 2 nodes without the root.
"""

import torch
from torch import Tensor
from torch.nn import functional


def num_nodes(depth: int) -> int:
    """Nodes below the root of a complete tree."""
    return 2 ** (depth + 1) - 2


def node_indices(bits: Tensor) -> Tensor:
    """The path of each code: ``(..., K)`` booleans -> ``(..., K)`` nodes, level 1 to K."""
    level = torch.arange(bits.shape[-1], device=bits.device)
    behind = level - level.unsqueeze(-1)  # how many bits of the prefix follow bit i at level j
    powers = torch.where(behind >= 0, 2 ** behind.clamp(min=0), 0)
    return 2 ** (level + 1) - 2 + (bits.long().unsqueeze(-1) * powers).sum(-2)


def node_levels(depth: int) -> Tensor:
    """Level of each node, ``(N,)``."""
    levels = torch.arange(1, depth + 1)
    return levels.repeat_interleave(2**levels)


def node_probabilities(probabilities: Tensor) -> Tensor:
    """Probability of reaching each node: ``(B, K)`` of the bits being 1 -> ``(B, N)``."""
    reach, levels = torch.ones_like(probabilities[:, :1]), []
    for bit in probabilities.split(1, dim=1):
        reach = torch.stack([reach * (1 - bit), reach * bit], dim=-1).flatten(1)
        levels.append(reach)
    return torch.cat(levels, dim=1)


def log_probability(gates: Tensor, bits: Tensor) -> Tensor:
    """Logarithm of P(bits) for independent bits with P(1) = sigmoid(gate): ``(B, K), (B, K) -> (B,)``."""
    return -functional.softplus(torch.where(bits, -gates, gates)).sum(-1)


def reinforce_loss(losses: Tensor, log_probabilities: Tensor) -> Tensor:
    """Mean loss whose gradient has the score-function term of the sampled bits.

    The baseline of an example is the mean loss of the others, which leaves the gradient unbiased.

    Args:
        losses: ``(B,)`` one loss for each example, at least two.
        log_probabilities: ``(B,)`` of the bits that each example used (``PrefixTreeLinear.sample``).

    Returns:
        Tensor: scalar; its value is that of the mean loss plus the surrogate, only its gradient means something.

    Raises:
        ValueError: fewer than two examples.

    Source: Williams 1992; for gating bits Bengio et al. 2013 (arXiv 1308.3432), whose baseline is another.
    """
    if len(losses) < 2:
        raise ValueError(f"the baseline of REINFORCE needs at least 2 examples, got {len(losses)}.")
    fixed = losses.detach()
    baseline = (fixed.sum() - fixed) / (len(losses) - 1)
    return losses.mean() + ((fixed - baseline) * log_probabilities).mean()
