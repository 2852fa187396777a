"""The meta-loss on seeds that are neither trained on nor reported."""

from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from typing_extensions import override

from learned_opt.core import tree
from learned_opt.evaluation.seeded_runs import VALID, run_seeds
from learned_opt.training.callbacks.progress import ProgressBar
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.trainer import meta_trainer


class Validation(Callback):
    """Logs the meta-loss of theta itself on validation seeds; only in the leader.

    The figures of a mix end with the name of the task.

    Args:
        every: outer steps between two validations; the last step is validated too.

    Raises:
        ValueError: it is not positive.
    """

    def __init__(self, every: int) -> None:
        if every < 1:
            raise ValueError(f"every must be at least 1, got {every}.")
        self.every = every

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        due = trainer.global_step % self.every == 0 or trainer.global_step == trainer.max_steps
        if not due or not trainer.is_global_zero:
            return

        module = meta_trainer(pl_module)
        # the first one may have to compile, which takes longer than many outer steps
        for callback in trainer.callbacks:  # pyright: ignore[reportAttributeAccessIssue]
            if isinstance(callback, ProgressBar):
                callback.work_on("validating")

        figures: dict[str, Tensor] = {}
        for label, problem in module.problems.items():
            suffix = f"/{label}" if label else ""
            for name, value in validate(problem, module.detached_theta).items():
                figures[f"{name}{suffix}"] = value

        # not by the module, which would repeat the figures in the rows that follow
        trainer.callback_metrics.update(figures)
        row = {name: value.item() for name, value in figures.items()}
        for logger in trainer.loggers:
            logger.log_metrics(row, trainer.global_step - 1)


def validate(problem: InnerProblem, theta: dict[str, Tensor]) -> dict[str, Tensor]:
    """The figures of theta on the validation seeds of a task, scalars."""
    num_chains = problem.num_chains
    many = tree.contiguous(tree.expand(theta, num_chains))  # leaves (num_chains, *shape)
    runs = run_seeds(problem.unroll, many, VALID, range(num_chains), problem.horizon, num_chains)
    return {
        "meta_loss/valid": runs.mean_loss.mean().float(),
        "final_loss/valid": runs.final_loss.mean().float(),
    }
