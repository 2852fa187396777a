"""From a composed config and its problems to a meta-training."""

from dataclasses import dataclass
from pathlib import Path

import lightning
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.compose.inner_problems import Problem
from learned_opt.compose.loggers import build_loggers, log_config, task_settings
from learned_opt.compose.outer_optimizer import build_outer
from learned_opt.core.errors import RunError, UsageError, usage_errors
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.estimators.single_process import as_shared
from learned_opt.inner.unroll import Unroll
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.assembly import Parts, assemble
from learned_opt.training.checkpoint_files import (
    CheckpointError,
    find_checkpoint,
    newest,
    num_tasks,
)
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.meta_training import Training
from learned_opt.training.quiet_lightning import quiet_lightning


def build_estimator(cfg: DictConfig, estimator: DictConfig, unroll: Unroll) -> SharedEstimator:
    """A meta-gradient estimator on the truncation of a config.

    Raises:
        UsageError: its number of tasks is still to be worked out, which meta-training does before.
    """
    if estimator.num_tasks == "auto":
        raise UsageError("this command takes a number for estimator.num_tasks, got 'auto'.")
    truncation = instantiate(cfg.truncation)
    with usage_errors("estimator"):
        return as_shared(instantiate(estimator)(unroll=unroll, truncation=truncation))


@dataclass(frozen=True)
class Start:
    """What a training goes on from.

    Args:
        checkpoint: its file, None to start anew.
        num_tasks: of its chains, by task; empty where there is none.
    """

    checkpoint: Path | None
    num_tasks: dict[str, int]


def find_start(folder: Path, checkpoint: str | None) -> Start:
    """The newest whole checkpoint of a run folder, or else the one that is named.

    Raises:
        UsageError: ``checkpoint`` is none.
        RunError: every checkpoint of a folder is damaged.
    """
    try:
        with usage_errors():
            file = newest(RunFolder(folder).checkpoints)
            if file is None and checkpoint:
                file = find_checkpoint(Path(checkpoint))
            return Start(file, num_tasks(file) if file else {})
    except CheckpointError as error:
        raise RunError(str(error)) from error


def build_training(
    cfg: DictConfig, problems: dict[str, Problem], folder: Path, start: Start
) -> Training:
    """Build estimator, module, callbacks, loggers and the Lightning trainer.

    Args:
        cfg: the composed config.
        problems: from ``build_problems``.
        folder: run folder.
        start: from ``find_start``.

    Raises:
        UsageError: a value is out of its range, or the checkpoint does not fit.
    """
    quiet_lightning()
    with usage_errors():
        inner_problems = _inner_problems(problems)
        optimizer = next(iter(problems.values())).optimizer
        outer = build_outer(cfg.outer_optimizer)
        # else its values are refused by Lightning, in the middle of the start
        with usage_errors("outer_optimizer"):
            outer.check(dict(optimizer.named_parameters()))

        loggers = build_loggers(cfg, folder)
        parts = Parts(
            optimizer=optimizer,
            problems=inner_problems,
            weights={name: problem.cfg.weight for name, problem in problems.items()},
            outer_optimizer=outer.optimizer,
            schedule=outer.schedule,
            seed=cfg.seed,
            max_steps=cfg.trainer.max_steps,
            trainer=instantiate(cfg.trainer, _partial_=True),
            callbacks=build_callbacks(cfg.callbacks),
            loggers=loggers,
            folder=folder,
            checkpoint=start.checkpoint,
            blocks=outer.blocks,
            beside=outer.beside,
        )
        training = assemble(parts)

    log_config(loggers, cfg, problems)
    return training


def build_callbacks(nodes: DictConfig) -> list[lightning.Callback]:
    """The callbacks of a config, in its order, which is that in which they act.

    Args:
        nodes: name -> a node with a ``_target_``.

    Raises:
        ValueError: one is no callback.
    """
    callbacks = []
    for name in nodes:
        callback = instantiate(nodes[name])
        if not isinstance(callback, lightning.Callback):
            kind = type(callback).__name__
            raise ValueError(
                f"callbacks.{name} must be a Lightning callback, got {kind}; its _target_ names "
                f"the class, and ~callbacks.{name} leaves it out."
            )

        callbacks.append(callback)

    return callbacks


def _inner_problems(problems: dict[str, Problem]) -> dict[str, InnerProblem]:
    """What a training works on, by the names of the tasks."""
    settings = task_settings(problems)
    inner_problems: dict[str, InnerProblem] = {}
    for name, problem in problems.items():
        task_config = problem.cfg
        inner_problems[name] = InnerProblem(
            task=name,
            unroll=problem.heldout,
            horizon=task_config.horizon,
            num_chains=problem.benchmark.num_chains,
            estimator=build_estimator(task_config, task_config.estimator, problem.unroll),
            config=settings[name],
        )

    return inner_problems
