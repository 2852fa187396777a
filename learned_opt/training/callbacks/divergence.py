"""An end to a training in which nothing is finite any more."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override


class StopWhenNothingIsFinite(Callback):
    """Ends training after so many outer steps in a row in which no task stayed finite.

    Args:
        patience: outer steps.

    Raises:
        ValueError: it is not positive.
    """

    def __init__(self, patience: int) -> None:
        if patience < 1:
            raise ValueError(f"patience must be at least 1, got {patience}.")
        self.patience = patience
        self.in_a_row = 0

    @property
    def stopped(self) -> bool:
        """Whether it ended the training."""
        return self.in_a_row >= self.patience

    @override
    def state_dict(self) -> dict[str, int]:
        return {"in_a_row": self.in_a_row}

    @override
    def load_state_dict(self, state_dict: dict[str, int]) -> None:
        self.in_a_row = state_dict["in_a_row"]

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        # the meta-loss is that of all ranks, so that they stop together
        nothing_finite = trainer.callback_metrics["meta_loss/train"].isnan()
        self.in_a_row = self.in_a_row + 1 if nothing_finite else 0
        trainer.should_stop = trainer.should_stop or self.stopped
