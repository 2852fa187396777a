"""Signal and noise of a series of estimates of the meta-gradient.

Legend: P meta-parameters.
"""

from typing import Any

import torch
from torch import Tensor


class SignalMeter:
    """Estimates ``|mu|^2`` and ``E |noise|^2`` of estimates ``g = mu + noise``.

    Both are without bias, from weighted averages of g and of ``|g|^2`` with weights ``decay^age``,
    under the assumption that mu is constant and the estimates independent.

    Args:
        decay: of the averages; 0.9 is as good as the last 19 estimates.

    Attributes:
        sums: the weighted sums, which are all of its state.

    Raises:
        ValueError: the decay is not between 0 and 1.

    >>> meter = SignalMeter(0.9)
    >>> _ = meter.update(torch.tensor([1.0, 0.0]))
    >>> signal, noise = meter.update(torch.tensor([1.0, 0.0]))
    >>> round(signal.item(), 6), round(noise.item(), 6)
    (1.0, 0.0)
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, got {decay}.")
        self.decay = decay
        self.sums: dict[str, Any] = {
            "gradient": 0.0,
            "square": 0.0,
            "weight": 0.0,
            "squared_weight": 0.0,
        }

    def update(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Take in one estimate; the first one alone does not tell the noise.

        Args:
            gradient: the estimate, ``(P,)``.

        Returns:
            tuple[Tensor, Tensor]: ``|mu|^2`` and ``E |noise|^2``, scalars.
        """
        latest = {"gradient": gradient, "square": gradient.square().sum(), "weight": 1.0}
        sums = {}
        for name, value in latest.items():
            before = self.sums[name]
            if isinstance(before, Tensor):
                before = before.to(gradient.device)  # a checkpoint brings it to the CPU
            sums[name] = self.decay * before + value
        sums["squared_weight"] = self.decay**2 * self.sums["squared_weight"] + 1
        self.sums = sums

        size = self._size()
        inverse_count = self._inverse_count()
        if inverse_count < 1:
            noise = (sums["square"] / sums["weight"] - size) / (1 - inverse_count)
        else:
            noise = size * torch.nan
        return size - inverse_count * noise, noise

    def share_of_signal(self, signal: Tensor) -> Tensor:
        """How much of the squared norm of the average of all estimates is signal, a scalar.

        Args:
            signal: ``|mu|^2``, as the last ``update`` gave it.
        """
        return signal / self._size()

    def _size(self) -> Tensor:
        """Squared norm of the average of the estimates."""
        mean = self.sums["gradient"] / self.sums["weight"]
        return mean.square().sum()

    def _inverse_count(self) -> float:
        """One over the number of equal weights whose average has as much noise."""
        return self.sums["squared_weight"] / self.sums["weight"] ** 2
