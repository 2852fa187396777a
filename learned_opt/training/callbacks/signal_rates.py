"""Outer learning rates in proportion to the signal that each block of theta is measured to have."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from learned_opt.training.parameter_groups import NAME
from learned_opt.training.signal_meter import SignalMeter
from learned_opt.training.trainer import meta_trainer

ALL = "theta"  # name of the one block of an outer optimizer without blocks
Group = dict[str, Any]  # of a torch.optim.Optimizer


class SignalRates(Callback):
    r"""Scales the learning rate of each block by the share of its averaged gradient that is signal.

    With the weighted average m of n estimates of the meta-gradient, weights ``decay^age``, the
    factor of a block in the step that follows is

    .. math:: \max\left(\text{smallest},\; 1 - \frac{E|noise|^2 / n_{eff}}{|m|^2}\right),
        \qquad n_{eff} = \frac{(\sum w)^2}{\sum w^2},

    with the noise of one estimate as ``SignalMeter`` has it: about ``s / (1 + s)`` for the signal
    to noise s of the average. Adam moves a block by its full rate whatever its signal is; this way
    one without signal walks by ``smallest`` of it. The first two outer steps are not scaled.

    Logs ``rate_factor/BLOCK`` and ``meta_grad_snr/BLOCK``, the latter of one estimate.

    Args:
        decay: of the averages, per outer step; 0.99 counts about 200 estimates. What the outer
            optimizer steps along is averaged as well where this is its first decay.
        smallest: factor of a block that shows no signal.

    Raises:
        ValueError: the decay is not between 0 and 1, or ``smallest`` is not above 0 and at most 1.

    Source: James & Stein 1961, positive part, for the factor; McCandlish et al. 2018 (arXiv
        1812.06162), equation 2.6, has ``s / (1 + s)`` for the best step of SGD, there with the
        curvature; Balles & Hennig 2018 (arXiv 1705.07774) take it for each coordinate.

    >>> SignalRates(0.99, 0.1).factors
    {}
    """

    def __init__(self, decay: float, smallest: float) -> None:
        SignalMeter(decay)  # checks it
        if not 0 < smallest <= 1:
            raise ValueError(f"smallest must be above 0 and at most 1, got {smallest}.")
        self.decay = decay
        self.smallest = smallest
        self.meters: dict[str, SignalMeter] = {}
        self.factors: dict[str, float] = {}  # of the blocks in the next step
        self._hooks: list[Any] = []
        self._unscaled: list[float] = []

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        optimizer = trainer.optimizers[0]
        # around the step alone: schedules work on the rates as they are without it
        self._hooks = [
            optimizer.register_step_pre_hook(self._scale),
            optimizer.register_step_post_hook(self._restore),
        ]

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for hook in self._hooks:
            hook.remove()

    @override
    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        figures: dict[str, Tensor | float] = {}
        for group in optimizer.param_groups:
            gradient = _gradient(group)
            if gradient is None:
                continue

            name = group.get(NAME, ALL)
            meter = self.meters.setdefault(name, SignalMeter(self.decay))
            is_first = not meter.sums["weight"]
            signal, noise = meter.update(gradient)
            if is_first:
                continue  # one estimate tells no noise

            share = float(meter.share_of_signal(signal).nan_to_num())
            self.factors[name] = min(max(share, self.smallest), 1.0)
            figures[f"rate_factor/{name}"] = self.factors[name]
            figures[f"meta_grad_snr/{name}"] = (signal.clamp(min=0) / noise).nan_to_num()
        meta_trainer(pl_module).log_dict(figures, batch_size=1)

    def _scale(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        self._unscaled = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:
            group["lr"] = group["lr"] * self.factors.get(group.get(NAME, ALL), 1.0)

    def _restore(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        for group, rate in zip(optimizer.param_groups, self._unscaled, strict=True):
            group["lr"] = rate

    @override
    def state_dict(self) -> dict[str, Any]:
        sums = {name: meter.sums for name, meter in self.meters.items()}
        return {"sums": sums, "factors": dict(self.factors)}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.factors = dict(state_dict["factors"])
        for name, sums in state_dict["sums"].items():
            self.meters[name] = SignalMeter(self.decay)
            self.meters[name].sums = sums


def _gradient(group: Group) -> Tensor | None:
    """The estimate for a block, ``(P,)``, before clipping; None where there is none."""
    parts = []
    for parameter in group["params"]:
        if parameter.grad is not None:
            parts.append(parameter.grad.detach().flatten())
    return torch.cat(parts) if parts else None
