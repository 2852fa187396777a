"""Factors of the gradients of single examples: what a gradient set is kept as.

A weight that an operation multiplies an activation a with has, for each row r of the batch, the
gradient ``a_r g_r``, g the gradient of the loss with respect to what the operation gives. A row is
an example at one position: the tokens of a text, the pixels of a feature map and the time steps of
a recurrent network count as examples. So B, the number of examples that a mean loss divides by, is
the number of rows, and ``B a_r g_r`` is the gradient of one of them alone.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from learned_opt.optimizers.sites import Site

NUM_MOMENTS = 4  # mean and mean square of activations, then those of gradients


@dataclass(frozen=True)
class Factors:
    """All uses of one parameter in the loss of a batch.

    Args:
        sites: where it is read; several where it is tied or serves many time steps.
        num_rows: rows of the batch that each entry reads, B: a number where it is one for all
            entries, else ``(*shape,)``.
    """

    sites: tuple[Site, ...]
    num_rows: float | Tensor

    def gradient(self) -> Tensor:
        """``sum_r a_r g_r``, which is the gradient of the loss: ``(*shape,)``."""
        return self._total(1)

    def squares(self) -> Tensor:
        """``sum_r (a_r g_r)^2``, which is the mean square of the rows' gradients over B.

        The gradients of rows drawn independently have a mean with that variance, but for the part
        of the mean itself, see ``error_squares``.
        """
        return self._total(2)

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
        parts = []
        for power in (1, 2):
            parts.append(self._mean([site.mean_activations(power) for site in self.sites]))
        for power in (1, 2):
            mean = self._mean([site.mean_gradients(power) for site in self.sites])
            parts.append(mean * self.num_rows**power)
        return torch.stack(parts)

    def _total(self, power: int) -> Tensor:
        total = self.sites[0].total(power)
        for site in self.sites[1:]:
            total = total + site.total(power)
        return total

    def _mean(self, means: list[Tensor]) -> Tensor:
        """The mean over all rows of what are means over the rows of each site."""
        total = None
        for site, mean in zip(self.sites, means, strict=True):
            spread = site.num_rows * mean.expand(site.route.shape)
            part = site.route.back(spread, power=0)
            total = part if total is None else total + part
        assert total is not None  # there is a site

        num_rows = self.num_rows
        if isinstance(num_rows, Tensor):
            return total / num_rows.clamp_min(1)
        return total / num_rows


FactorTree = Mapping[str, Factors]  # by parameter; those that cannot be covered are not in it


def count_rows(sites: tuple[Site, ...]) -> float | Tensor:
    """Rows that each entry of a parameter reads, see ``Factors``."""
    total = torch.zeros(sites[0].route.param_shape)
    for site in sites:
        total = total + site.num_rows * site.route.copies().to(total)

    if (total == total.flatten()[0]).all():
        return total.flatten()[0].item()
    return total
