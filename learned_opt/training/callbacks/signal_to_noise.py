"""How much of one estimate of the meta-gradient is signal.

Legend: P meta-parameters.
"""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.training.signal_meter import SignalMeter


class SignalToNoise(Callback):
    """Logs ``meta_grad_snr``, how much of one estimate of the meta-gradient is signal.

    With estimates ``g = mu + noise`` of a mu that changes slowly, it is ``|mu|^2 / E |noise|^2``.
    Both are estimated as ``SignalMeter`` does; where the estimate of the signal is negative, 0 is
    logged.

    Args:
        decay: of the averages; 0.9 is as good as the last 19 estimates.

    Raises:
        ValueError: the decay is not between 0 and 1.
    """

    def __init__(self, decay: float) -> None:
        self.meter = SignalMeter(decay)

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
        signal, noise = self.meter.update(flat)
        if trainer.global_step:
            pl_module.log("meta_grad_snr", signal.clamp(min=0) / noise, batch_size=1)

    @override
    def state_dict(self) -> dict[str, Any]:
        return self.meter.sums

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.meter.sums = state_dict
