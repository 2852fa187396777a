"""When checkpoints are written, and how Lightning writes them."""

import hashlib
import io
import os
from pathlib import Path
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch.callbacks import Callback

from learned_opt.meta.checkpoints import CheckpointError, beside, by_step, prune, write_whole
from learned_opt.meta.signals import Signals


class WholeFiles(TorchCheckpointIO):
    """Lightning's checkpoint files, each written in one move and with a checksum beside it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | os.PathLike, storage_options: Any = None) -> None:
        """Write the file.

        Raises:
            CheckpointError: the disk is full or cannot be written; what was there before is untouched.
        """
        path, content = Path(path), io.BytesIO()
        torch.save(checkpoint, content)
        checksum = hashlib.sha256(content.getbuffer()).hexdigest()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(beside(path), f"{checksum}  {path.name}\n".encode())
            write_whole(path, content.getbuffer())
        except OSError as error:
            if not path.exists():
                beside(path).unlink(missing_ok=True)
            raise CheckpointError(
                f"cannot write checkpoint {path}: {error.strerror}. {_still_there(path.parent)} "
                "Make room and start the same command again with hydra.run.dir set to the run folder."
            ) from error


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

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
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


def _still_there(folder: Path) -> str:
    steps = list(by_step(folder))
    return f"The checkpoint of outer step {steps[0]} is whole." if steps else "There is none yet."
