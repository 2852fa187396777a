"""Persistent evolution strategies: unbiased over the whole horizon from short unrolls.

Legend: N pairs.
"""

from torch import Tensor
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.estimators.antithetic import AntitheticES
from learned_opt.estimators.base import State
from learned_opt.estimators.pairs import Noise, where_pairs
from learned_opt.estimators.perturbation import Draw


class PES(AntitheticES):
    """A new eps for every unroll; the direction sums all scores of the pair since its restart.

    Arguments as of ``AntitheticES``.

    Source: Vicol et al. 2021 (arXiv 2112.13835), algorithm 2. The loss of an estimate is the
    mean over one unroll, so the expectation over staggered chains is the gradient of the mean
    loss over the horizon (where ``meta_loss.reduction`` is ``mean``).
    """

    @override
    def init_memory(self, theta: Tree) -> State:
        return {"accumulator": self.zeros(theta)}

    @override
    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        summed = tree.add(state["accumulator"], drawn.score)
        accumulator = where_pairs(restarted, drawn.score, summed)
        return Noise(drawn.eps, accumulator, {"accumulator": accumulator})
