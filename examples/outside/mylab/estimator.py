"""An estimator of the meta-gradient between ES and PES."""

from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.tree import Tree, tree_map
from learned_opt.estimators.antithetic import AntitheticES
from learned_opt.estimators.base import State
from learned_opt.estimators.pairs import Noise, where_pairs
from learned_opt.estimators.perturbation import Draw


class FadingPES(AntitheticES):
    """PES whose sum of earlier noise fades by half from unroll to unroll: less variance, some bias.

    Arguments as of ``AntitheticES``.
    """

    def init_memory(self, theta: Tree) -> State:
        """No noise before the first unroll."""
        return {"faded": self.zeros(theta)}

    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        """The noise of an unroll, and the direction that its losses are multiplied with."""
        halved = tree_map(lambda leaf: 0.5 * leaf, state["faded"])
        faded = where_pairs(restarted, drawn.score, tree.add(halved, drawn.score))
        return Noise(drawn.eps, faded, {"faded": faded})
