"""A meta-training that is ready to run."""

from dataclasses import dataclass
from pathlib import Path
from signal import Signals as Signal

import lightning

from learned_opt.core.errors import RunError
from learned_opt.estimators.base import GradientEstimator
from learned_opt.training.callbacks.agreement import RanksDisagree
from learned_opt.training.callbacks.divergence import StopWhenNothingIsFinite
from learned_opt.training.callbacks.signals import Signals
from learned_opt.training.callbacks.throughput import Throughput
from learned_opt.training.checkpoints import CheckpointError
from learned_opt.training.trainer import MetaTrainer


@dataclass(frozen=True)
class Training:
    """Everything that meta-training needs; ``run`` does it."""

    module: MetaTrainer
    trainer: lightning.Trainer
    estimators: dict[str, GradientEstimator]  # by task
    signals: Signals
    diverged: StopWhenNothingIsFinite
    throughput: Throughput
    ckpt: Path | None

    def run(self) -> Signal | None:
        """Meta-train; returns the signal that stopped it, if one did.

        Raises:
            RunError: no task stayed finite for too long, the ranks are not of one mind, or a file cannot be written.
        """
        try:
            self.trainer.fit(self.module, ckpt_path=self.ckpt, weights_only=True)
        except (CheckpointError, RanksDisagree) as error:
            raise RunError(str(error)) from error
        except OSError as error:
            raise RunError(
                f"cannot go on at outer step {self.trainer.global_step}: {error}."
            ) from error
        if self.diverged.stopped:
            raise RunError(
                f"no task stayed finite for {self.diverged.patience} outer steps in a row, up to step "
                f"{self.trainer.global_step}; lower the outer learning rate (outer_optimizer.optimizer.lr), "
                "estimator.sigma or learned.alpha."
            )
        return self.signals.stopped_by

    def spent(self) -> dict[str, str]:
        """What the meta-training took, over all its parts."""
        minutes = self.throughput.seconds / 60
        return {
            "outer_steps": str(self.trainer.global_step),
            "meta_training": f"{minutes:.1f} minutes",
        }
