"""When checkpoints are written, and how Lightning writes them."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from learned_opt.training.callbacks.signals import Signals
from learned_opt.training.checkpoints import prune


class Checkpoints(Callback):
    """Writes checkpoints: every so many outer steps, when a signal asks for one, and at the end.

    A checkpoint of step n is written as step n + 1 starts, when the metrics of step n are logged; they are on the disk
    before it is, so that a resumed run lacks no row.

    Args:
        folder: where to.
        every: outer steps between two checkpoints.
        keep: how many stay.
        signals: asks for checkpoints.

    Raises:
        ValueError: a count is not positive.
    """

    def __init__(self, folder: Path, every: int, keep: int, signals: Signals) -> None:
        for name, value in (("checkpoint_every", every), ("keep_checkpoints", keep)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.folder, self.every, self.keep, self.signals = folder, every, keep, signals
        self.saved = 0

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """There is nothing to save before the first step."""
        self.saved = trainer.global_step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Save when it is due or asked for."""
        if trainer.global_step % self.every == 0 or self.signals.pending:
            self._save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the end, a requested stop included."""
        self._save(trainer)

    def _save(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if step == self.saved:
            return
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.folder / f"step_{step}.ckpt")
        if trainer.is_global_zero:
            prune(self.folder, step, self.keep)
        self.saved = step
