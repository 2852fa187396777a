"""A meta-training that is ready to run."""

from dataclasses import dataclass
from pathlib import Path
from signal import Signals as Signal
from typing import TypeVar

import lightning
from lightning.pytorch.callbacks import Timer

from learned_opt.core.errors import RunError
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.training.callbacks.agreement import RanksDisagree
from learned_opt.training.callbacks.divergence import StopWhenNothingIsFinite
from learned_opt.training.callbacks.signals import Signals
from learned_opt.training.callbacks.theta_average import ThetaAverage
from learned_opt.training.callbacks.throughput import Throughput
from learned_opt.training.checkpoint_files import CheckpointError
from learned_opt.training.trainer import MetaTrainer

C = TypeVar("C", bound=lightning.Callback)


@dataclass(frozen=True)
class Training:
    """Everything that meta-training needs; ``run`` does it.

    Args:
        module: updates theta.
        trainer: holds the callbacks and the loggers.
        estimators: task -> its estimator.
        checkpoint: the file to go on from; None to start anew.
    """

    module: MetaTrainer
    trainer: lightning.Trainer
    estimators: dict[str, SharedEstimator]
    checkpoint: Path | None

    def run(self) -> Signal | None:
        """Meta-train; returns the signal that stopped it, if one did.

        Raises:
            RunError: no task stayed finite for too long, the ranks are not of one mind, or a
                file cannot be written.
        """
        try:
            self.trainer.fit(self.module, ckpt_path=self.checkpoint, weights_only=True)
        except (CheckpointError, RanksDisagree) as error:
            raise RunError(str(error)) from error
        except OSError as error:
            step = self.trainer.global_step
            raise RunError(f"cannot go on at outer step {step}: {error}.") from error

        divergence = self._callback(StopWhenNothingIsFinite)
        if divergence and divergence.stopped:
            raise RunError(
                f"no task stayed finite for {divergence.patience} outer steps in a row, up to "
                f"step {self.trainer.global_step}; lower the outer learning rate, the sigma of "
                "the estimator or the alpha of the meta-optimizer."
            )
        signals = self._callback(Signals)
        return signals.stopped_by if signals else None

    @property
    def ran_out_of_time(self) -> bool:
        """Whether the ``max_time`` of the trainer ended it before the last outer step."""
        timer = self._callback(Timer)
        remaining = timer.time_remaining() if timer else None
        is_over = remaining is not None and remaining <= 0
        return is_over and self.trainer.global_step < self.trainer.max_steps

    @property
    def average(self) -> ThetaAverage | None:
        """The average of theta; None where none is kept, or no step was made."""
        average = self._callback(ThetaAverage)
        return average if average and average.has_begun else None

    def spent(self) -> dict[str, str]:
        """What the meta-training took, over all its parts."""
        figures = {"outer_steps": str(self.trainer.global_step)}
        if throughput := self._callback(Throughput):
            figures["meta_training"] = f"{throughput.seconds / 60:.1f} minutes"
        return figures

    def _callback(self, kind: type[C]) -> C | None:
        """The callback of a class; None where the config leaves it out."""
        for callback in self.trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, kind):
                return callback
        return None
