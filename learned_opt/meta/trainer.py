"""Meta-training as a LightningModule."""

import logging
import pickle
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import lightning
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from learned_opt import tree
from learned_opt.deploy.weights import check_theta
from learned_opt.meta.estimators.base import GradientEstimator, MetaGradient, State
from learned_opt.meta.replay import Recorder
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.rng import generator
from learned_opt.tree import Tree


class MetaTrainer(lightning.LightningModule):
    """Updates theta with estimated meta-gradients; one Lightning batch is one outer step.

    Optimisation stays automatic: ``training_step`` returns a surrogate whose value is the meta-loss and whose gradient
    is the estimate, so that gradient averaging over devices, clipping and schedules work as in any Lightning module.
    All state beside theta and the outer optimizer is ``estimator_state``, a plain attribute (a buffer would be
    overwritten by rank 0's under DDP) that goes into the checkpoint as it is.

    Args:
        optimizer: the meta-optimizer; its parameters are theta.
        estimator: estimates the meta-gradient.
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

    @property
    def theta(self) -> dict[str, Tensor]:
        """Meta-parameters by name."""
        return dict(self.meta_optimizer.named_parameters())

    def on_train_start(self) -> None:
        """Start the chains, unless a checkpoint brought them."""
        if self.estimator_state is None:
            self.estimator_state = self.estimator.init_state(self.theta, generator(self.seed, "start"))

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
        """Chains, accumulators and counters."""
        checkpoint["estimator_state"] = self.estimator_state

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Take up the chains where the checkpoint left them, every tensor where a fresh state has it."""
        fresh = self.estimator.init_state(self.theta, generator(self.seed, "start"))
        saved = checkpoint["estimator_state"]
        self.estimator_state = tree.tree_map(lambda like, leaf: leaf.to(like.device), fresh, saved)

    def _log(self, estimate: MetaGradient) -> None:
        values = {
            "meta_loss/train": estimate.meta_loss,
            "meta_grad_norm": tree.global_norm(estimate.gradient),
            "nonfinite_pairs": estimate.num_nonfinite.float(),
            **{f"meta_loss/train/{task}": part.meta_loss for task, part in estimate.parts.items()},
        }
        self.log_dict(values, batch_size=1)


def surrogate_loss(theta: Tree, estimate: MetaGradient) -> Tensor:
    """A scalar whose value is the meta-loss and whose gradient with respect to theta is the estimate."""
    inner = torch.stack([(theta[name] * gradient).sum() for name, gradient in estimate.gradient.items()]).sum()
    return estimate.meta_loss.nan_to_num() + inner - inner.detach()


def load_checkpoint(path: str, optimizer: MetaOptimizer, estimator: GradientEstimator) -> Path:
    """Check that a Lightning checkpoint can be resumed with this meta-optimizer and this estimator.

    Raises:
        ValueError: it is missing, damaged, not ours, of another architecture or of other chains; names what differs.
    """
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"ckpt must be a checkpoint file, but there is none at {path}.")
    try:
        checkpoint = torch.load(file, map_location="cpu", weights_only=True)
    except (RuntimeError, pickle.UnpicklingError, EOFError) as error:
        raise ValueError(f"ckpt {path} cannot be read, it is damaged or not a checkpoint.") from error
    if not isinstance(checkpoint, dict) or "estimator_state" not in checkpoint:
        raise ValueError(f"ckpt {path} is no checkpoint of meta-training.")
    prefix = "meta_optimizer."
    theta = {name.removeprefix(prefix): value for name, value in checkpoint["state_dict"].items()}
    check_theta(optimizer, theta, path)
    fresh = estimator.init_state(dict(optimizer.named_parameters()), generator("fresh"))
    saved, needed = (
        {name: tuple(leaf.shape) for name, leaf in tree.flatten(state).items()}
        for state in (checkpoint["estimator_state"], fresh)
    )
    for name in {**needed, **saved}:
        there, here = (shapes.get(name, "missing") for shapes in (saved, needed))
        if there != here:
            raise ValueError(f"ckpt {path} is of another run: {name} is {there} there and {here} here.")
    return file


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
