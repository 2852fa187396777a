"""An end to a training in which nothing is finite any more."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class StopWhenNothingIsFinite(Callback):
    """Ends training after so many outer steps in a row in which no task stayed finite.

    Args:
        patience: outer steps.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"stop_after_nonfinite must be at least 1, got {patience}.")
        self.patience, self.in_a_row = patience, 0

    @property
    def stopped(self) -> bool:
        """Whether it ended the training."""
        return self.in_a_row >= self.patience

    def state_dict(self) -> dict[str, int]:
        """The count, for a checkpoint."""
        return {"in_a_row": self.in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        """Go on counting."""
        self.in_a_row = state_dict["in_a_row"]

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Count, and stop when it is enough; the meta-loss is that of all ranks, so that they stop together."""
        nothing = trainer.callback_metrics["meta_loss/train"].isnan()
        self.in_a_row = self.in_a_row + 1 if nothing else 0
        trainer.should_stop = trainer.should_stop or self.stopped
