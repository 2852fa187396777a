"""How the noise of the evolution strategies is distributed over the tensors of theta.

Legend: N pairs; ... m n the axes of a tensor, r the rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from learned_opt.core.checks import check_at_least, check_between, check_each, check_positive
from learned_opt.core.tree import Tree
from learned_opt.optimizers.blocks import BLOCKS, matches


class Draw(NamedTuple):
    """Noise of N pairs; leaves ``(N, *shape)``.

    Args:
        eps: added to and subtracted from theta.
        score: ``eps_i / s_i^2`` for tensor i; divided by ``sigma^2`` it is the score of eps if
            that is Gaussian.
        memory: what an estimator that draws in its own way keeps for the next draw.
    """

    eps: Tree
    score: Tree
    memory: Mapping[str, Tensor] = MappingProxyType({})


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

    With a density q, every entry of z is 0 with probability 1 - q, independently, and else what
    it was over ``sqrt(q)``: covariance 1 too, so that the same holds. Where the loss is linear
    within reach of eps neither rank nor density changes the variance of the estimate by more than
    a fourth moment does; what changes is how far, and in how many directions at once, eps reaches.

    A pattern is a name of a tensor of theta, with wildcards, or a block of theta: ``scalars``,
    ``pointwise`` or ``equivariant``. The first that matches counts.

    Args:
        factors: pattern -> s, 1 where none matches; None for 1 everywhere. A tensor with factor 0
            is not perturbed and its estimated gradient is 0, so that Adam leaves it as it is.
        relative: multiply s by the root mean square of the tensor.
        floor: least root mean square that ``relative`` reckons with, since some tensors start at
            zero.
        rank: r, or pattern -> r; None, and where no pattern matches, for Gaussian z.
        density: q, or pattern -> q; None, and where no pattern matches, for 1.

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
    rank: int | Mapping[str, int] | None = None
    density: float | Mapping[str, float] | None = None

    def __post_init__(self) -> None:
        check_each("factors", self.factors or {}, least=0)
        check_positive(floor=self.floor)
        for name, value in _by_argument("rank", self.rank).items():
            check_at_least(1, **{name: value})
        for name, value in _by_argument("density", self.density).items():
            check_positive(**{name: value})
            check_between(0, 1, **{name: value})

    def check(self, theta: Mapping[str, Tensor]) -> None:
        """Check that every pattern matches a tensor of theta.

        Raises:
            ValueError: one does not.
        """
        arguments = {"factors": self.factors, "rank": self.rank, "density": self.density}
        for argument, values in arguments.items():
            patterns = values if isinstance(values, Mapping) else {}
            for pattern in patterns:
                if not any(matches(pattern, name, leaf) for name, leaf in theta.items()):
                    raise ValueError(
                        f"{argument}[{pattern}] names no tensor of theta, and no block of it "
                        f"({', '.join(BLOCKS)}): {', '.join(theta)}."
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
            unit = torch.stack([self._unit(name, leaf, source) for source in sources])
            base = (sigma * unit).to(leaf)  # (N, *shape)
            scale = self.scale(name, leaf)
            eps[name] = base * scale
            is_fixed = self.is_fixed(name, leaf)
            score[name] = torch.zeros_like(base) if is_fixed else base / scale
        return Draw(eps, score)

    def scale(self, name: str, leaf: Tensor) -> float | Tensor:
        """The s of a tensor of theta."""
        factor = _chosen(self.factors, name, leaf, 1.0)
        if not self.relative:
            return factor
        return factor * leaf.square().mean().sqrt().clamp(min=self.floor)

    def is_fixed(self, name: str, leaf: Tensor) -> bool:
        """Whether a tensor of theta is not perturbed."""
        return _chosen(self.factors, name, leaf, 1.0) == 0

    def _unit(self, name: str, leaf: Tensor, source: torch.Generator) -> Tensor:
        """One z for a tensor of theta."""
        rank = _chosen(self.rank, name, leaf, None)
        density = _chosen(self.density, name, leaf, None)

        unit = _dense(leaf.shape, rank, source)
        if density is None:
            return unit
        is_kept = torch.rand(leaf.shape, generator=source) < density
        return unit.where(is_kept, 0) / sqrt(density)


def _dense(shape: torch.Size, rank: int | None, source: torch.Generator) -> Tensor:
    if rank is None or len(shape) < 2:
        return torch.randn(shape, generator=source)

    *others, m, n = shape
    left = torch.randn(*others, m, rank, generator=source)
    right = torch.randn(*others, n, rank, generator=source)
    return left @ right.mT / sqrt(rank)


def _chosen(values: Any, name: str, leaf: Tensor, default: Any) -> Any:
    """The value of the first pattern that matches a tensor, or the one value of all tensors."""
    if values is None:
        return default
    if not isinstance(values, Mapping):
        return values

    for pattern, value in values.items():
        if matches(pattern, name, leaf):
            return value
    return default


def _by_argument(argument: str, values: Any) -> dict[str, Any]:
    """The numbers of an argument by the names that messages call them."""
    if values is None:
        return {}
    if not isinstance(values, Mapping):
        return {argument: values}
    return {f"{argument}[{pattern}]": value for pattern, value in values.items()}
