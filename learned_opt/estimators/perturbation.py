"""How the noise of the evolution strategies is distributed over the tensors of theta.

Legend: N pairs; ... m n the axes of a tensor, r the rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from math import sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from learned_opt.core.checks import check_at_least, check_each, check_positive
from learned_opt.core.tree import Tree


class Draw(NamedTuple):
    """Noise of N pairs; leaves ``(N, *shape)``.

    Args:
        eps: added to and subtracted from theta.
        score: ``eps_i / s_i^2`` for tensor i; divided by ``sigma^2`` it is the score of eps if
            that is Gaussian.
    """

    eps: Tree
    score: Tree


@dataclass(frozen=True)
class Perturbation:
    """``eps_i = sigma s_i z_i`` for tensor i of theta, where z has mean 0 and covariance 1.

    A difference of losses times ``eps_i / (sigma s_i)^2`` estimates the gradient of the loss
    smoothed by eps. It has no bias for Gaussian z, whatever the factors s; those of ``relative``
    are constants in this, theta is not differentiated through them, and each eps is weighed by
    the factors with which it was drawn.

    With a rank r, z of a tensor with two or more axes is a sum of r outer products over its last
    two axes, ``a b^T / sqrt(r)`` with a (m, r) and b (n, r) standard normal: covariance 1, so
    that the estimate has no bias where the loss is linear or quadratic in theta within reach of
    eps. Elsewhere it is the mean of ``grad L(theta + eps) b b^T / r``, which is O(sigma^2 / r)
    off the gradient of the loss smoothed by Gaussian noise. It takes r (m + n) random numbers
    instead of m n; eps itself is held dense.

    Args:
        factors: name of a tensor of theta, with wildcards, -> s; the first that matches, 1 where
            none does; None for 1 everywhere. A tensor with factor 0 is not perturbed and its
            estimated gradient is 0, so that Adam leaves it as it is.
        relative: multiply s by the root mean square of the tensor.
        floor: least root mean square that ``relative`` reckons with, since some tensors start at
            zero.
        rank: r; None for Gaussian z.

    Raises:
        ValueError: a value is out of its range.

    Source: low rank as in EGGROLL, Sarkar et al. 2025 (arXiv 2511.16652); there the factors are
    never multiplied out.

    >>> theta = {"weight": torch.zeros(3, 2), "log_lr": torch.zeros(())}
    >>> sources = [torch.Generator().manual_seed(pair) for pair in range(4)]
    >>> Perturbation(factors={"log_*": 0.0}).draw(theta, 0.1, sources).eps["weight"].shape
    torch.Size([4, 3, 2])
    """

    factors: Mapping[str, float] | None = None
    relative: bool = False
    floor: float = 0.1
    rank: int | None = None

    def __post_init__(self) -> None:
        check_each("factors", dict(self._factors), least=0)
        check_positive(floor=self.floor)
        if self.rank is not None:
            check_at_least(1, rank=self.rank)

    def check(self, names: Sequence[str]) -> None:
        """Check that every pattern of ``factors`` names a tensor of theta.

        Raises:
            ValueError: one does not.
        """
        for pattern, _ in self._factors:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise ValueError(
                    f"factors[{pattern}] names no tensor of theta: {', '.join(names)}."
                )

    def draw(self, theta: Tree, sigma: float, sources: Sequence[torch.Generator]) -> Draw:
        """Draw the noise of N pairs.

        Args:
            theta: meta-parameters, by name.
            sigma: standard deviation of eps where s is 1.
            sources: one generator for each pair.
        """
        eps = {}
        score = {}
        for name, leaf in theta.items():
            unit = torch.stack([self._unit(leaf.shape, source) for source in sources])
            base = (sigma * unit).to(leaf)  # (N, *shape)
            scale = self._scale(name, leaf)
            eps[name] = base * scale
            is_fixed = self._factor(name) == 0
            score[name] = torch.zeros_like(base) if is_fixed else base / scale
        return Draw(eps, score)

    @property
    def _factors(self) -> Sequence[tuple[str, float]]:
        return list((self.factors or {}).items())

    def _unit(self, shape: torch.Size, source: torch.Generator) -> Tensor:
        """One z for a tensor of this shape."""
        if self.rank is None or len(shape) < 2:
            return torch.randn(shape, generator=source)

        *others, m, n = shape
        left = torch.randn(*others, m, self.rank, generator=source)
        right = torch.randn(*others, n, self.rank, generator=source)
        return left @ right.mT / sqrt(self.rank)

    def _factor(self, name: str) -> float:
        """The factor of the first pattern that matches the name."""
        for pattern, factor in self._factors:
            if fnmatchcase(name, pattern):
                return factor
        return 1.0

    def _scale(self, name: str, leaf: Tensor) -> float | Tensor:
        """The tensor's s."""
        factor = self._factor(name)
        if not self.relative:
            return factor
        return factor * leaf.square().mean().sqrt().clamp(min=self.floor)
