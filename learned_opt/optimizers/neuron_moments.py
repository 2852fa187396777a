"""What the examples of a batch have at the two neurons that a weight connects."""

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree, tree_map
from learned_opt.optimizers.base import check_between_0_and_1
from learned_opt.optimizers.factors import MOMENTS, NUM_MOMENTS
from learned_opt.optimizers.features import TINY, Features, Reading, ema


class NeuronMoments(Features):
    """Mean and root mean square of a and g over the examples: 4 channels.

    a is the activation that a weight is multiplied with, g the gradient of a single example's loss
    with respect to what comes out. Both are averages over steps, without the bias of their start,
    and in units of the root mean square over the tensor. A parameter without factors has channels
    of zero.

    Args:
        decay: of the averages.

    Raises:
        ValueError: the decay lies outside of (0, 1).

    Source: sufficient statistics of the sets of Gelberg et al. 2025 (arXiv 2507.01649) up to second
    order; moments in the place of the sets are a choice of this project.
    """

    factor_needs = frozenset({MOMENTS})

    def __init__(self, decay: float = 0.9) -> None:
        super().__init__(NUM_MOMENTS)
        check_between_0_and_1(decay=decay)
        self.decay = decay

    @override
    def init_state(self, params: Tree) -> Tree:
        return {"moments": tree_map(lambda p: p.new_zeros(NUM_MOMENTS, *p.shape), params)}

    @override
    def forward(self, reading: Reading, state: Tree) -> tuple[Tree, Tree]:
        averages = {}
        channels = {}
        for name, average in state["moments"].items():
            if name not in reading.factors:
                averages[name] = average
                channels[name] = average.movedim(0, -1)
                continue
            moments = reading.factors[name].moments()  # (4, *shape)
            averages[name] = ema(average, moments, self.decay)
            unbiased = averages[name] / (1 - self.decay**reading.step)
            channels[name] = relative_moments(unbiased).movedim(0, -1)
        return channels, {"moments": averages}


def relative_moments(moments: Tensor) -> Tensor:
    """Means and root mean squares, in units of the root mean square over all entries.

    Args:
        moments: ``(4, ...)``: means and mean squares of a, then those of g.

    Returns:
        Tensor: of the same shape.
    """
    parts = []
    for mean, square in (moments[:2], moments[2:]):
        scale = torch.rsqrt(square.mean() + TINY)
        parts += [mean * scale, (square + TINY).sqrt() * scale]
    return torch.stack(parts)
