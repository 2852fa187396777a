"""Evolution strategies that keep a perturbation for several unrolls: PES keeps it for one, NRES for all."""

from dataclasses import dataclass

import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.estimators.antithetic import AntitheticES, Noise, where_pairs
from learned_opt.estimators.base import State
from learned_opt.estimators.perturbation import Draw


@dataclass(eq=False)
class NRES(AntitheticES):
    """The direction is the sum of the scores of the different eps that the pair has had since its restart.

    With one eps for the whole horizon this is noise-reuse ES, also published as ES-Single: unbiased for the meta-loss
    smoothed by one perturbation. Its variance is below that of PES where the unrolls pull theta in different
    directions, and above it where they pull alike. With a new eps every ``noise_period`` unrolls it is generalised
    PES, with 1 it is PES.

    Args:
        noise_period: unrolls that share an eps; None for all until the restart. The others as of ``AntitheticES``.

    Source: Li et al. 2023 (arXiv 2304.12180), algorithms 1 and 2; Vicol 2023 (ES-Single).
    """

    noise_period: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.noise_period is not None and self.noise_period < 1:
            raise ValueError(f"noise_period must be at least 1 or null, got {self.noise_period}.")

    def init_memory(self, theta: Tree) -> State:
        """No eps yet; ``age`` counts the unrolls since the restart, ``(N,)``."""
        zeros = self.zeros(theta)
        return {
            "eps": zeros,
            "accumulator": zeros,
            "age": torch.zeros(len(self.population.tasks), dtype=torch.int64),
        }

    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        """See ``AntitheticES.noise``."""
        age = state["age"].where(~restarted, 0)
        renew = age == 0 if self.noise_period is None else age % self.noise_period == 0
        eps = where_pairs(renew, drawn.eps, state["eps"])
        added = where_pairs(
            renew, tree.add(state["accumulator"], drawn.score), state["accumulator"]
        )
        accumulator = where_pairs(age == 0, drawn.score, added)
        return Noise(eps, accumulator, {"eps": eps, "accumulator": accumulator, "age": age + 1})
