"""How much of one estimate of the meta-gradient is signal.

Legend: P meta-parameters.
"""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override


class SignalToNoise(Callback):
    """Logs ``meta_grad_snr``, how much of one estimate of the meta-gradient is signal.

    With estimates ``g = mu + noise`` of a mu that changes slowly, it is ``|mu|^2 / E |noise|^2``.
    Both are estimated without bias from weighted averages of g and of ``|g|^2`` over outer steps,
    weights ``decay^age``, under the assumption that mu is constant and the estimates independent;
    where the signal's estimate is negative, 0 is logged.

    Args:
        decay: of the averages; 0.9 is as good as the last 19 estimates.

    Raises:
        ValueError: the decay is not between 0 and 1.
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

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        # the estimate as it is before clipping
        gradients = []
        for parameter in pl_module.parameters():
            if parameter.grad is not None:
                gradients.append(parameter.grad.detach().flatten())

        flat = torch.cat(gradients)  # (P,)
        signal, noise = self.update(flat)
        if trainer.global_step:
            pl_module.log("meta_grad_snr", signal.clamp(min=0) / noise, batch_size=1)

    def update(self, gradient: Tensor) -> tuple[Tensor, Tensor]:
        """Take in one estimate; the first one alone does not tell the noise.

        Args:
            gradient: the estimate, ``(P,)``.

        Returns:
            tuple[Tensor, Tensor]: ``|mu|^2`` and ``E |noise|^2``, scalars.
        """
        latest = {"gradient": gradient, "square": gradient.square().sum(), "weight": 1.0}
        sums = {name: self.decay * self.sums[name] + value for name, value in latest.items()}
        sums["squared_weight"] = self.decay**2 * self.sums["squared_weight"] + 1
        self.sums = sums

        mean = sums["gradient"] / sums["weight"]
        size = mean.square().sum()
        inverse_count = sums["squared_weight"] / sums["weight"] ** 2
        if inverse_count < 1:
            noise = (sums["square"] / sums["weight"] - size) / (1 - inverse_count)
        else:
            noise = size * torch.nan
        return size - inverse_count * noise, noise

    @override
    def state_dict(self) -> dict[str, Any]:
        return self.sums

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.sums = state_dict
