"""Meta-training as a LightningModule."""

import logging
import warnings
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from learned_opt.core import tree
from learned_opt.core.rng import generator
from learned_opt.core.tree import Tree
from learned_opt.estimators.base import GradientEstimator, MetaGradient, State
from learned_opt.estimators.share import Share
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.training.replay import Recorder


class MetaTrainer(lightning.LightningModule):
    """Updates theta with estimated meta-gradients; one Lightning batch is one outer step.

    Optimisation stays automatic: ``training_step`` returns a surrogate whose value is the meta-loss and whose gradient
    is the estimate, so that clipping and schedules work as in any Lightning module. Ranks add up their shares of the
    estimate before; what DDP then averages are equal gradients, so that the order in which it sums, which is another
    one after a resume, makes no difference.

    All state beside theta and the outer optimizer is ``estimator_state``, a plain attribute (a buffer would be
    overwritten by rank 0's under DDP): the rows of this rank's share of the tasks. A checkpoint holds those of all.

    Args:
        optimizer: the meta-optimizer; its parameters are theta.
        estimator: estimates the meta-gradient; its tasks are those of all ranks.
        outer_optimizer: constructor ``(parameters) -> torch.optim.Optimizer``.
        schedule: constructor ``(outer optimizer) -> schedule``, stepped once per outer step; None for none.
        seed: root of all randomness.
        max_steps: outer steps.
        recorders: write recipes of unrolls that were not finite, by the keys of ``launches``; empty for no recipes.
    """

    def __init__(
        self,
        optimizer: MetaOptimizer,
        estimator: GradientEstimator,
        outer_optimizer: Callable[..., torch.optim.Optimizer],
        schedule: Callable[..., Any] | None,
        seed: int,
        max_steps: int,
        recorders: Mapping[str, Recorder] = MappingProxyType({}),
    ) -> None:
        super().__init__()
        if max_steps < 1:
            raise ValueError(f"max_steps must be at least 1, got {max_steps}.")
        self.meta_optimizer, self.estimator = optimizer, estimator
        self.outer_optimizer, self.schedule = outer_optimizer, schedule
        self.seed, self.max_steps, self.recorders = seed, max_steps, dict(recorders)
        self.estimator_state: State | None = None
        self.share = Share()

    @property
    def theta(self) -> dict[str, Tensor]:
        """Meta-parameters by name."""
        return dict(self.meta_optimizer.named_parameters())

    def setup(self, stage: str) -> None:
        """Take this rank's share of the tasks."""
        self.share = Share(self.trainer.global_rank, self.trainer.world_size)
        self.estimator = self.estimator.shared(self.share)

    def on_train_start(self) -> None:
        """Start the chains, unless a checkpoint brought them."""
        if self.estimator_state is None:
            self.estimator_state = self.estimator.init_state(
                self.theta, generator(self.seed, "start")
            )

    def on_train_batch_start(self, batch: list[Tensor], batch_idx: int) -> None:
        """Number the rows of loggers by outer steps: Lightning's own count is off by one after some resumes."""
        self.trainer.fit_loop.epoch_loop._batches_that_stepped = self.global_step

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        """One estimate; the batch is a dummy."""
        assert self.estimator_state is not None, "on_train_start makes it"
        key = (self.seed, "estimate", self.global_step)
        theta = {name: parameter.detach() for name, parameter in self.theta.items()}
        before = self.estimator_state
        estimate, self.estimator_state = self.estimator.estimate(theta, before, generator(*key))
        if self.recorders and not estimate.finite.all():
            launches = self.estimator.launches(theta, before, generator(*key))
            for task, launch in launches.items():
                own = estimate.parts.get(task, estimate)
                self.recorders[task].record(launch, own.finite.cpu(), self.global_step)
        estimate = estimate._replace(gradient=self.share.total_tree(estimate.gradient))
        self._log(estimate)
        return surrogate_loss(self.theta, estimate)

    def on_train_end(self) -> None:
        """Say what the recorder left out."""
        for recorder in self.recorders.values():
            recorder.summarise()

    def configure_optimizers(self) -> Any:
        """The outer optimizer and its schedule."""
        optimizer = self.outer_optimizer(self.meta_optimizer.parameters())
        if self.schedule is None:
            return optimizer
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": self.schedule(optimizer), "interval": "step"},
        }

    def train_dataloader(self) -> DataLoader[tuple[Tensor, ...]]:
        """One number per outer step; tasks make their own batches."""
        return DataLoader(TensorDataset(torch.arange(self.max_steps)))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Chains, accumulators and counters of all ranks, in the order of the tasks: any number of ranks can go on."""
        assert self.estimator_state is not None, "on_train_start makes it"
        states = self.share.gather(tree.to(self.estimator_state, "cpu"))
        checkpoint["estimator_state"] = (
            self.estimator.join(states) if states else None
        )  # only rank 0 writes

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the chains where the checkpoint left them, every tensor where a fresh state has it."""
        fresh = self.estimator.init_state(self.theta, generator(self.seed, "start"))
        saved = self.estimator.select(checkpoint["estimator_state"])
        self.estimator_state = tree.tree_map(lambda like, leaf: leaf.to(like.device), fresh, saved)

    def _log(self, estimate: MetaGradient) -> None:
        values = {
            "meta_loss/train": estimate.meta_loss,
            "meta_grad_norm": tree.global_norm(estimate.gradient),
            "nonfinite_pairs": self.share.total(estimate.num_nonfinite.float()),
            **{f"meta_loss/train/{task}": part.meta_loss for task, part in estimate.parts.items()},
        }
        self.log_dict(values, batch_size=1)


def surrogate_loss(theta: Tree, estimate: MetaGradient) -> Tensor:
    """A scalar whose value is the meta-loss and whose gradient with respect to theta is the estimate."""
    inner = torch.stack(
        [(theta[name] * gradient).sum() for name, gradient in estimate.gradient.items()]
    ).sum()
    return estimate.meta_loss.nan_to_num() + inner - inner.detach()


def quiet_lightning() -> None:
    """Silence what Lightning and torch say at every start and what does not apply to meta-training."""
    for name in ("lightning", "lightning.pytorch", "lightning.fabric"):
        logger = logging.getLogger(name)
        logger.handlers.clear()  # under Hydra every line would come twice
        logger.setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",  # the batches are dummies
        ".*Experiment logs directory.*",  # Hydra made it a moment ago
        ".*dataloader is not resumable.*",
        ".*resuming from a checkpoint that ended before the epoch.*",
        ".*srun.*command is available.*",
        ".*isinstance.treespec, LeafSpec.*",
        ".*torch._prims_common.check.*",  # torch itself, while it compiles
    ):
        warnings.filterwarnings("ignore", message)
