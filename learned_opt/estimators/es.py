"""Evolution strategies over one unroll, antithetic.

With ``unroll_length`` equal to the horizon this is full ES, unbiased for the smoothed meta-loss.
With a shorter unroll it is truncated ES: cheap, but blind to how theta moved the chain before the
unroll began.

Legend: N pairs.
"""

from torch import Tensor
from typing_extensions import override

from learned_opt.core.tree import Tree
from learned_opt.estimators.antithetic import AntitheticES
from learned_opt.estimators.base import State
from learned_opt.estimators.pairs import Noise
from learned_opt.estimators.perturbation import Draw


class ES(AntitheticES):
    """A new eps for every unroll, and its score is the direction.

    Arguments as of ``AntitheticES``.

    Source: Salimans et al. 2017 (arXiv 1703.03864), antithetic pairs; truncated as in
    Metz et al. 2019 (arXiv 1810.10180).
    """

    @override
    def init_memory(self, theta: Tree) -> State:
        return {}

    @override
    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        return Noise(drawn.eps, drawn.score, {})
