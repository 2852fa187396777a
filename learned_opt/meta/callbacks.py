"""What happens around outer steps: throughput, validation, an end where nothing is finite."""

import time
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from learned_opt import tree
from learned_opt.evaluation.benchmark import run_seeds
from learned_opt.meta.unroll import Unroll


class Throughput(Callback):
    """Logs inner steps per second of each outer step; other callbacks and the compiling step are not counted.

    ``seconds`` is what all outer steps took, compilation included; it is kept in checkpoints.

    Args:
        steps_per_estimate: inner steps of one outer step, all chains together.
    """

    def __init__(self, steps_per_estimate: int) -> None:
        self.steps_per_estimate, self.start, self.compiled, self.seconds = steps_per_estimate, 0.0, False, 0.0

    def state_dict(self) -> dict[str, float]:
        """The seconds so far."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, float]) -> None:
        """Go on counting."""
        self.seconds = state_dict["seconds"]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Start the clock."""
        self.start = time.perf_counter()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Log the rate."""
        seconds = time.perf_counter() - self.start
        if self.compiled:
            pl_module.log("inner_steps_per_second", self.steps_per_estimate / seconds, batch_size=1)
        self.compiled = True
        self.seconds += seconds


class Validation(Callback):
    """Logs the meta-loss of theta itself on validation seeds, which are neither trained on nor reported.

    Args:
        unroll: the inner loop.
        horizon: inner steps.
        num_chains: validation seeds, run side by side.
        every: outer steps between two validations.
        suffix: of the names of the figures.
    """

    def __init__(self, unroll: Unroll, horizon: int, num_chains: int, every: int, suffix: str = "") -> None:
        if every < 1:
            raise ValueError(f"validate_every must be at least 1, got {every}.")
        self.unroll, self.horizon, self.num_chains = unroll, horizon, num_chains
        self.every, self.suffix = every, suffix

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Validate when it is due and after the last step."""
        if trainer.global_step % self.every and trainer.global_step != trainer.max_steps:
            return
        theta = {name: p.detach() for name, p in self.unroll.optimizer.named_parameters()}
        many = tree.contiguous(tree.expand(theta, self.num_chains))
        runs = run_seeds(self.unroll, many, "valid", range(self.num_chains), self.horizon, self.num_chains)
        figures = {"meta_loss/valid": runs.mean_loss.mean(), "final_loss/valid": runs.final_loss.mean()}
        named = {f"{name}{self.suffix}": value.float() for name, value in figures.items()}
        trainer.callback_metrics.update(named)
        for logger in trainer.loggers:  # not by the module, which would repeat the figures in the rows that follow
            logger.log_metrics({name: value.item() for name, value in named.items()}, trainer.global_step - 1)


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

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any) -> None:
        """Count, and stop when it is enough; the meta-loss is that of all ranks, so that they stop together."""
        nothing = trainer.callback_metrics["meta_loss/train"].isnan()
        self.in_a_row = self.in_a_row + 1 if nothing else 0
        trainer.should_stop = trainer.should_stop or self.stopped
