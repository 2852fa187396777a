"""Factors of the gradients of single examples: what a gradient set is kept as.

A weight that an operation multiplies an activation a with has, for each row r of the batch, the
gradient ``a_r g_r``, g the gradient of the loss with respect to what the operation gives. A row is
an example at one position: the tokens of a text, the pixels of a feature map and the time steps of
a recurrent network count as examples. So B, the number of examples that a mean loss divides by, is
the number of rows, and ``B a_r g_r`` is the gradient of one of them alone.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from typing_extensions import override

from learned_opt.optimizers.sites import Site

NUM_MOMENTS = 4  # mean and mean square of activations, then those of gradients
FEW = 5  # names in a message

# what features may read of a gradient set: sums of squares, moments of neurons, the rows themselves
SQUARES = "squares"
MOMENTS = "moments"
ROWS = "rows"
NEEDS = (SQUARES, MOMENTS, ROWS)


class GradientSet(ABC):
    """The gradients of single examples of one parameter, as far as features read them.

    Attributes:
        num_rows: rows of the batch that each entry reads, B: a number where it is one for all
            entries, else ``(*shape,)``.
    """

    num_rows: float | Tensor

    @abstractmethod
    def gradient(self) -> Tensor:
        """``sum_r a_r g_r``, which is the gradient of the loss: ``(*shape,)``."""

    @abstractmethod
    def squares(self) -> Tensor:
        """``sum_r (a_r g_r)^2``, which is the mean square of the rows' gradients over B.

        The gradients of rows drawn independently have a mean with that variance, but for the part
        of the mean itself, see ``error_squares``.
        """

    @abstractmethod
    def row_sums(self) -> Tensor:
        """The sums over rows of a, a^2, g and g^2 at the two neurons of each weight.

        Returns:
            Tensor: ``(4, *shape)``.
        """

    def error_squares(self) -> Tensor:
        """The square of the standard error of the gradient, as a mean over rows: ``(*shape,)``.

        It is ``(mean_r (B a_r g_r)^2 - gradient^2) / (B - 1)``, zero where there is one row.
        """
        num_rows = self.num_rows
        excess = num_rows * self.squares() - self.gradient().square()
        if isinstance(num_rows, Tensor):
            return excess.clamp_min(0) / (num_rows - 1).clamp_min(1)
        return excess.clamp_min(0) / max(num_rows - 1, 1)

    def moments(self) -> Tensor:
        """What the rows have at the two neurons of each weight: ``(4, *shape)``.

        Means over rows of a, a^2, B g and (B g)^2.
        """
        num_rows = self.num_rows
        sums = self.row_sums()
        means = sums / (num_rows.clamp_min(1) if isinstance(num_rows, Tensor) else num_rows)
        a, a_squares, g, g_squares = means
        return torch.stack([a, a_squares, g * num_rows, g_squares * num_rows**2])


@dataclass(frozen=True)
class Factors(GradientSet):
    """All uses of one parameter in the loss of a batch, row by row.

    Args:
        sites: where it is read; several where it is tied or serves many time steps.
        num_rows: see ``GradientSet``.
    """

    sites: tuple[Site, ...]
    num_rows: float | Tensor

    @override
    def gradient(self) -> Tensor:
        return self._total(1)

    @override
    def squares(self) -> Tensor:
        return self._total(2)

    @override
    def row_sums(self) -> Tensor:
        parts = []
        for power in (1, 2):
            parts.append(self._sum([site.mean_activations(power) for site in self.sites]))
        for power in (1, 2):
            parts.append(self._sum([site.mean_gradients(power) for site in self.sites]))
        return torch.stack(parts)

    def _total(self, power: int) -> Tensor:
        total = self.sites[0].total(power)
        for site in self.sites[1:]:
            total = total + site.total(power)
        return total

    def _sum(self, means: list[Tensor]) -> Tensor:
        """The sum over all rows of what are means over the rows of each site."""
        total = None
        for site, mean in zip(self.sites, means, strict=True):
            spread = site.num_rows * mean.expand(site.route.shape)
            part = site.route.back(spread, power=0)
            total = part if total is None else total + part
        assert total is not None  # there is a site
        return total


FactorTree = Mapping[str, GradientSet]  # by parameter, without those that cannot be covered
RowTree = Mapping[str, Factors]  # the same with their rows


def count_rows(sites: tuple[Site, ...]) -> float | Tensor:
    """Rows that each entry of a parameter reads, see ``GradientSet``."""
    total = torch.zeros(sites[0].route.param_shape)
    for site in sites:
        total = total + site.num_rows * site.route.copies().to(total)

    if (total == total.flatten()[0]).all():
        return total.flatten()[0].item()
    return total


def uncovered_sentence(uncovered: Mapping[str, str]) -> str:
    """What to tell people about parameters without factors.

    Args:
        uncovered: name -> reason.

    >>> uncovered_sentence({"scale": "it is read by pow"})
    'no gradients of single examples for scale (it is read by pow); their channels are 0.'
    """
    names = list(uncovered)
    listed = ", ".join(f"{name} ({uncovered[name]})" for name in names[:FEW])
    more = f" and {len(names) - FEW} more" if len(names) > FEW else ""
    return f"no gradients of single examples for {listed}{more}; their channels are 0."
