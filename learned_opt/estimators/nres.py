"""Evolution strategies that keep a perturbation for several unrolls: PES keeps it for one.

Legend: N pairs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.core.checks import check_at_least
from learned_opt.core.tree import Tree
from learned_opt.estimators.antithetic import AntitheticES
from learned_opt.estimators.base import State
from learned_opt.estimators.pairs import Noise, where_pairs
from learned_opt.estimators.perturbation import Draw


@dataclass(eq=False)
class NRES(AntitheticES):
    """The direction sums the scores of the different eps that the pair had since its restart.

    With one eps for the whole horizon this is noise-reuse ES, also published as ES-Single:
    unbiased for the meta-loss smoothed by one perturbation. Its variance is below that of PES
    where the unrolls pull theta in different directions, and above it where they pull alike.
    With a new eps every ``noise_period`` unrolls it is generalised PES, with 1 it is PES.

    Args:
        noise_period: unrolls that share an eps; None for all until the restart. The others as
            of ``AntitheticES``.

    Source: Li et al. 2023 (arXiv 2304.12180), algorithms 1 and 2; Vicol 2023 (ES-Single).
    """

    noise_period: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_period is not None:
            check_at_least(1, noise_period=self.noise_period)

    @override
    def init_memory(self, theta: Tree) -> State:
        zeros = self.zeros(theta)
        return {
            "eps": zeros,
            "accumulator": zeros,
            # unrolls since the restart, (N,)
            "age": torch.zeros(len(self.population.tasks), dtype=torch.int64),
        }

    @override
    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        age = state["age"].where(~restarted, 0)
        renew = age == 0 if self.noise_period is None else age % self.noise_period == 0
        eps = where_pairs(renew, drawn.eps, state["eps"])

        summed = tree.add(state["accumulator"], drawn.score)
        added = where_pairs(renew, summed, state["accumulator"])
        accumulator = where_pairs(age == 0, drawn.score, added)

        memory = {"eps": eps, "accumulator": accumulator, "age": age + 1}
        return Noise(eps, accumulator, memory)
