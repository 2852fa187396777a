"""An average of theta over outer steps, kept beside theta."""

from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim.swa_utils import AveragedModel
from typing_extensions import override

from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.training.trainer import meta_trainer


class ThetaAverage(Callback):
    r"""Averages theta over outer steps; theta itself, and its training, stay as they are.

    After t steps it is :math:`\sum_i d^{t-i} \theta_i / \sum_i d^{t-i}`, i from 1 to t: a plain
    mean at first, and an exponential average over about ``1 / (1 - decay)`` steps later. A tensor
    that makes a random walk around its best value is nearer to it on average than at any step.

    Args:
        decay: of the weights, per outer step; 0.99 is an average over about 100 steps.

    Raises:
        ValueError: the decay is not between 0 and 1.

    Source: Polyak & Juditsky 1992 for averages of iterates; the weights are those of Adam's
        bias-corrected averages, Kingma & Ba 2015 (arXiv 1412.6980).

    >>> average = ThetaAverage(0.99)
    >>> average.has_begun
    False
    """

    def __init__(self, decay: float) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay must lie between 0 and 1, got {decay}.")
        self.decay = decay
        self._model: AveragedModel | None = None

    @property
    def has_begun(self) -> bool:
        """Whether there has been an outer step to average over."""
        return self._model is not None and bool(self._model.n_averaged > 0)

    @property
    def optimizer(self) -> MetaOptimizer:
        """The meta-optimizer whose theta is the average.

        Raises:
            RuntimeError: there has been no training.
        """
        if self._model is None:
            raise RuntimeError("there is no average of theta before the training.")
        averaged = self._model.module
        assert isinstance(averaged, MetaOptimizer)
        return averaged

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # before a checkpoint is loaded, which brings the average
        optimizer = meta_trainer(pl_module).meta_optimizer
        self._model = AveragedModel(optimizer, multi_avg_fn=self._average)
        self._model.requires_grad_(False)

    @override
    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert self._model is not None, "setup makes it"
        self._model.to(pl_module.device)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        assert self._model is not None, "setup makes it"
        self._model.update_parameters(meta_trainer(pl_module).meta_optimizer)

    @override
    def state_dict(self) -> dict[str, Any]:
        return {} if self._model is None else self._model.state_dict()

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        assert self._model is not None, "setup makes it"
        self._model.load_state_dict(state_dict)

    @torch.no_grad()
    def _average(self, averages: Any, thetas: Any, num_averaged: Tensor | int) -> None:
        """Move the averages of n thetas on by one more, in place."""
        weight = (1 - self.decay) / (1 - self.decay ** (int(num_averaged) + 1))
        for average, theta in zip(averages, thetas, strict=True):
            average.lerp_(theta, weight)
