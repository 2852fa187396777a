"""What happens around outer steps: throughput, validation, an end where nothing is finite."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from learned_opt.core import tree
from learned_opt.evaluation.seeded_runs import run_seeds
from learned_opt.inner.unroll import Unroll


class Validation(Callback):
    """Logs the meta-loss of theta itself on validation seeds, which are neither trained on nor reported.

    Args:
        unroll: the inner loop.
        horizon: inner steps.
        num_chains: validation seeds, run side by side.
        every: outer steps between two validations.
        suffix: of the names of the figures.
    """

    def __init__(
        self, unroll: Unroll, horizon: int, num_chains: int, every: int, suffix: str = ""
    ) -> None:
        if every < 1:
            raise ValueError(f"validate_every must be at least 1, got {every}.")
        self.unroll, self.horizon, self.num_chains = unroll, horizon, num_chains
        self.every, self.suffix = every, suffix

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Validate when it is due and after the last step."""
        if trainer.global_step % self.every and trainer.global_step != trainer.max_steps:
            return
        theta = {name: p.detach() for name, p in self.unroll.optimizer.named_parameters()}
        many = tree.contiguous(tree.expand(theta, self.num_chains))
        runs = run_seeds(
            self.unroll, many, "valid", range(self.num_chains), self.horizon, self.num_chains
        )
        figures = {
            "meta_loss/valid": runs.mean_loss.mean(),
            "final_loss/valid": runs.final_loss.mean(),
        }
        named = {f"{name}{self.suffix}": value.float() for name, value in figures.items()}
        trainer.callback_metrics.update(named)
        for logger in (
            trainer.loggers
        ):  # not by the module, which would repeat the figures in the rows that follow
            logger.log_metrics(
                {name: value.item() for name, value in named.items()}, trainer.global_step - 1
            )
