"""From the parts of a meta-training, all of them objects, to one that is ready to run."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.pytorch.loggers import Logger

from learned_opt.estimators.mixed import MixedEstimator
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.ranks import by_srun
from learned_opt.training.checkpoint_files import check_fits, check_groups
from learned_opt.training.checkpoint_io import WholeFiles
from learned_opt.training.inner_problem import InnerProblem, labels
from learned_opt.training.meta_training import Training
from learned_opt.training.parameter_groups import Settings
from learned_opt.training.trainer import MetaTrainer


@dataclass(frozen=True)
class Parts:
    """The parts of a meta-training.

    Args:
        optimizer: the meta-optimizer, on any of its tasks.
        problems: by the name of the task, each with its estimator.
        weights: of the meta-gradients, by the name of the task.
        outer_optimizer: constructor ``(parameters) -> torch.optim.Optimizer``.
        schedule: constructor ``(outer optimizer) -> schedule``; None for none.
        seed: root of all randomness.
        max_steps: outer steps.
        trainer: constructor of the ``lightning.Trainer``, with all that is not worked out here.
        callbacks: in the order in which they act.
        loggers: of the metrics.
        folder: of the run; None to write nothing.
        checkpoint: the file to go on from; None to start anew.
        blocks: pattern -> settings of the outer optimizer, see ``parameter_groups``.
        beside: callbacks that belong to the outer optimizer: an average of theta, or rates by the
            measured signal. They act behind the others.
    """

    optimizer: MetaOptimizer
    problems: Mapping[str, InnerProblem]
    weights: Mapping[str, float]
    outer_optimizer: Callable[..., torch.optim.Optimizer]
    schedule: Callable[..., Any] | None
    seed: int
    max_steps: int
    trainer: Callable[..., lightning.Trainer]
    callbacks: Sequence[lightning.Callback] = ()
    loggers: Sequence[Logger] = field(default_factory=list)
    folder: Path | None = None
    checkpoint: Path | None = None
    blocks: Mapping[str, Settings] = field(default_factory=dict)
    beside: Sequence[lightning.Callback] = ()


def assemble(parts: Parts) -> Training:
    """Build module and trainer.

    Raises:
        ValueError: a value is out of its range, or the checkpoint does not fit.
    """
    estimators = {name: problem.estimator for name, problem in parts.problems.items()}
    module = MetaTrainer(
        optimizer=parts.optimizer,
        estimator=_mixed(estimators, parts.weights),
        outer_optimizer=parts.outer_optimizer,
        schedule=parts.schedule,
        seed=parts.seed,
        max_steps=parts.max_steps,
        problems=dict(zip(labels(parts.problems), parts.problems.values(), strict=True)),
        blocks=parts.blocks,
    )
    module.configure_optimizers()  # else Lightning refuses blocks in the middle of the start

    device = next(iter(parts.problems.values())).unroll.device
    trainer = parts.trainer(
        accelerator=device.type.replace("cuda", "gpu"),  # Lightning's word
        callbacks=[*parts.callbacks, *parts.beside],
        logger=list(parts.loggers),
        plugins=[WholeFiles(), _environment()],
        default_root_dir=None if parts.folder is None else str(parts.folder),
    )

    # else Lightning fails in the middle of loading, with a message about tensors
    if parts.checkpoint:
        check_fits(parts.checkpoint, module.meta_optimizer, module.estimator)
        check_groups(parts.checkpoint, list(parts.blocks))
    return Training(module, trainer, estimators, parts.checkpoint)


def _environment() -> ClusterEnvironment:
    """Who has started the ranks."""
    if by_srun():
        return SLURMEnvironment(auto_requeue=False)  # callbacks.signals does it
    return LightningEnvironment()


def _mixed(
    estimators: Mapping[str, SharedEstimator], weights: Mapping[str, float]
) -> SharedEstimator:
    """The estimator of a run; that of a single task is itself."""
    if len(estimators) == 1:
        return next(iter(estimators.values()))
    return MixedEstimator(estimators, weights)
