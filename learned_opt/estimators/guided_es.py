"""Guided evolution strategies: noise that lies half in the directions of recent gradients.

Legend: N pairs, P entries of theta that are perturbed, k guiding gradients.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import sqrt

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.core.checks import check_at_least, check_between, check_positive
from learned_opt.core.tree import Tree
from learned_opt.estimators.antithetic import AntitheticES
from learned_opt.estimators.base import State
from learned_opt.estimators.chain_gradients import ChainGradients
from learned_opt.estimators.pairs import Noise
from learned_opt.estimators.perturbation import Draw

GUIDES = "guides"  # key of the state


@dataclass(eq=False)
class GuidedES(AntitheticES):
    """ES whose noise is ``eps = sigma (sqrt(a / P) z + sqrt((1 - a) / k) Q z')``.

    Each pair has its own Q, an orthonormal basis of the last k gradients of the chain that runs
    with theta itself beside it, that of this unroll among them. As these are independent of z
    and z', the estimate has mean ``b (a / P I + (1 - a) / k Q Q^T) grad L`` where the loss is
    linear in theta within reach of eps, the mean over the pairs: b a / P times the gradient, and
    much more of it in the span of Q. It is scaled and tilted, not unbiased, but never points
    away from the gradient. Noise has about the length sigma as a whole, not in every entry. Where
    ``perturbation`` scales tensors, all this holds in the scaled coordinates.

    Args:
        guided_share: 1 - a, of the variance of the noise in the span of Q.
        num_guides: k.
        beta: b; 2 and half of the variance in the span of one gradient give the gradient along it
            its full length.
        remat: the backward pass computes every inner step again, so that long unrolls fit;
            compiled steps always do.
            The others as of ``AntitheticES``, without ``control``.

    Source: Maheswaranathan et al. 2019 (arXiv 1806.10230).
    """

    guided_share: float = 0.5
    num_guides: int = 1
    beta: float = 2.0
    remat: bool = True

    def __post_init__(self) -> None:
        check_between(0, 1, guided_share=self.guided_share)
        check_at_least(1, num_guides=self.num_guides)
        check_positive(beta=self.beta)
        if self.control is not None:
            raise ValueError(
                "control must be null in guided ES, whose noise follows the gradient already."
            )
        super().__post_init__()

    @property
    @override
    def runs_theta(self) -> bool:
        return True

    @property
    @override
    def recomputes(self) -> bool:
        return self.remat

    @override
    def init_memory(self, theta: Tree) -> State:
        rows = _scaled_rows(self.zeros(theta), self._scales(theta))  # (N, P)
        return {GUIDES: rows[:, None].repeat(1, self.num_guides, 1)}

    @override
    def draw(
        self,
        theta: Tree,
        state: State,
        sources: Sequence[torch.Generator],
        unperturbed: ChainGradients | None,
    ) -> Draw:
        assert unperturbed is not None, "guided ES runs the chains with theta itself"
        scales = self._scales(theta)
        newest = _scaled_rows(unperturbed.gradients, scales)  # (N, P)
        guides = torch.cat([newest[:, None], state[GUIDES][:, :-1]], 1)  # (N, k, P)

        isotropic = self.perturbation.draw(theta, self.sigma, sources)
        along = self._along(guides, sources)  # (N, P)
        guided = self._mixed(isotropic, along, scales)
        return guided._replace(memory={GUIDES: guides})

    @override
    def noise(self, drawn: Draw, state: State, restarted: Tensor) -> Noise:
        direction = {name: self.beta * leaf for name, leaf in drawn.score.items()}
        return Noise(drawn.eps, direction, dict(drawn.memory))

    def _scales(self, theta: Tree) -> dict[str, float | Tensor]:
        """The standard deviation of every perturbed tensor in units of sigma."""
        scales = {}
        for name, leaf in theta.items():
            if not self.perturbation.is_fixed(name, leaf):
                scales[name] = self.perturbation.scale(name, leaf)
        return scales

    def _along(self, guides: Tensor, sources: Sequence[torch.Generator]) -> Tensor:
        """``sigma sqrt((1 - a) / k) Q z'`` of every pair, ``(N, P)``."""
        basis, _ = torch.linalg.qr(guides.mT)  # (N, P, k), fewer columns where P < k
        num_guides = basis.shape[-1]
        drawn = torch.stack([torch.randn(num_guides, generator=source) for source in sources])
        factor = self.sigma * sqrt(self.guided_share / num_guides)
        return (basis @ drawn.to(basis)[..., None])[..., 0] * factor

    def _mixed(self, isotropic: Draw, along: Tensor, scales: dict[str, float | Tensor]) -> Draw:
        """Isotropic noise, shortened, and that in the span of the guides."""
        shrink = sqrt((1 - self.guided_share) / along.shape[1])
        sizes = [isotropic.eps[name][0].numel() for name in scales]
        parts = dict(zip(scales, along.split(sizes, 1), strict=True))

        eps = {name: shrink * leaf for name, leaf in isotropic.eps.items()}
        score = {name: shrink * leaf for name, leaf in isotropic.score.items()}
        for name, scale in scales.items():
            part = parts[name].view_as(eps[name])
            eps[name] = eps[name] + scale * part
            score[name] = score[name] + part / scale
        return Draw(eps, score)


def _scaled_rows(values: Tree, scales: dict[str, float | Tensor]) -> Tensor:
    """Leaves ``(N, *shape)`` times their scales, side by side: ``(N, P)``."""
    rows = []
    for name, scale in scales.items():
        scaled = values[name] * scale
        rows.append(scaled.reshape(len(scaled), -1))
    return torch.cat(rows, 1)
