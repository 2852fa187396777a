"""Decides when checkpoints are written."""

from pathlib import Path
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.checkpoint_files import checkpoint_path, prune, remove_partial_files
from learned_opt.training.trainer import meta_trainer


class Checkpoints(Callback):
    """Writes checkpoints: every so many outer steps, when a signal asks for one, and at the end.

    The end may be an exception of a task of a user's own: the outer steps before it are kept. With
    several ranks they are not, since the others cannot be asked to write their shares.

    A checkpoint of step n is written as step n + 1 starts, when the metrics of step n are logged;
    they are on the disk before it is, so that a resumed run lacks no row.

    Args:
        every: outer steps between two checkpoints.
        keep: how many stay.

    Raises:
        ValueError: a count is not positive.
    """

    def __init__(self, every: int, keep: int) -> None:
        for name, value in (("every", every), ("keep", keep)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}.")
        self.every = every
        self.keep = keep
        self.saved = 0  # outer step of the last checkpoint

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.saved = trainer.global_step  # there is nothing to save before the first step
        if trainer.is_global_zero:
            remove_partial_files(Path(trainer.default_root_dir))

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        asked_for = bool(meta_trainer(pl_module).pending_signals)
        if trainer.global_step % self.every == 0 or asked_for:
            self._save(trainer)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save(trainer)  # also of a stop that was asked for

    @override
    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        is_of_a_task = isinstance(exception, Exception) and meta_trainer(pl_module).is_estimating
        if is_of_a_task and trainer.world_size == 1:
            self._save(trainer)
            step = trainer.global_step
            exception.add_note(f"Raised in outer step {step + 1}; the {step} before it are kept.")

    def _save(self, trainer: Trainer) -> None:
        step = trainer.global_step
        if step == self.saved:
            return

        for logger in trainer.loggers:
            logger.save()

        folder = RunFolder(Path(trainer.default_root_dir)).checkpoints
        trainer.save_checkpoint(checkpoint_path(folder, step))
        if trainer.is_global_zero:
            prune(folder, step, self.keep)
        self.saved = step
