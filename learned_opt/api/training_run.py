"""How a meta-training from Python is put together, run, and turned into its result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import lightning
import pandas as pd
from lightning.pytorch.loggers import Logger

from learned_opt.api.arguments import built, check_count, optimizer_constructor, shown
from learned_opt.api.meta_trained import MetaTrained
from learned_opt.api.run_in_folder import RunInFolder
from learned_opt.api.settings import Settings
from learned_opt.deploy import construct
from learned_opt.deploy.description import node_of
from learned_opt.deploy.weights import save_theta
from learned_opt.estimators.base import GradientEstimator
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.estimators.single_process import as_shared
from learned_opt.inner.bound_task import BoundTask, LoopSettings, TaskBinder
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.training.assembly import Parts, assemble, check_outer
from learned_opt.training.callbacks.checkpoints import Checkpoints
from learned_opt.training.callbacks.divergence import StopWhenNothingIsFinite
from learned_opt.training.callbacks.gauges import Gauges
from learned_opt.training.callbacks.interrupt import InterruptedTwice, StopAtInterrupt
from learned_opt.training.callbacks.progress import ProgressBar
from learned_opt.training.callbacks.signal_to_noise import SignalToNoise
from learned_opt.training.callbacks.throughput import Throughput
from learned_opt.training.callbacks.validation import Validation
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.metrics_file import MetricsFile
from learned_opt.training.metrics_table import MetricsTable
from learned_opt.training.theta_record import Origin, theta_record

# as in configs/callbacks and configs/logger
KEPT_CHECKPOINTS = 2
SIGNAL_DECAY = 0.9
PATIENCE = 10  # outer steps
FLUSH_EVERY = 20  # rows of metrics.csv


@dataclass(frozen=True)
class Watching:
    """What looks on while a meta-training runs, see ``meta_train``."""

    checkpoint_every: int
    validate_every: int | None
    callbacks: Sequence[lightning.Callback]
    logger: Logger | Sequence[Logger] | None
    progress: bool

    def __post_init__(self) -> None:
        check_count(1, checkpoint_every=self.checkpoint_every)
        if self.validate_every is not None:
            check_count(1, validate_every=self.validate_every)
        for i, callback in enumerate(self.callbacks):
            if not isinstance(callback, lightning.Callback):
                raise TypeError(
                    f"callbacks[{i}] must be a lightning.Callback, got {shown(callback)}."
                )
        for each in self.loggers:
            if not isinstance(each, Logger):
                raise TypeError(
                    f"logger must be a Lightning logger or a list of them, got {shown(each)}."
                )

    @property
    def loggers(self) -> list[Logger]:
        """Those of the user."""
        if self.logger is None:
            return []
        return list(self.logger) if isinstance(self.logger, list | tuple) else [self.logger]

    def callbacks_of(self, folder: Path | None, stop: StopAtInterrupt) -> list[lightning.Callback]:
        """All callbacks, in the order in which they act, which is that of the commands."""
        parts: list[lightning.Callback] = []
        if folder is not None:
            parts.append(Checkpoints(self.checkpoint_every, KEPT_CHECKPOINTS))
        parts += [Throughput(), Gauges(), SignalToNoise(SIGNAL_DECAY)]
        if self.validate_every is not None:
            parts.append(Validation(self.validate_every))
        parts += [StopWhenNothingIsFinite(PATIENCE), stop]
        if self.progress:
            parts.append(ProgressBar())
        return [*parts, *self.callbacks]


def bound_tasks(settings: Settings, loops: LoopSettings) -> dict[str, BoundTask]:
    """The tasks, each with the meta-optimizer on its weights.

    Raises:
        TypeError: the constructor takes other arguments, or makes something else.
        ValueError: a task cannot train, or the optimizer does not fit it.
    """
    constructor = optimizer_constructor(settings.optimizer)
    binder = TaskBinder(constructor, settings.seed, f"optimizer {settings.label}")
    bound = {}
    for name, family in settings.tasks.items():
        bound[name] = binder.bind(name, family, loops)
    return bound


def inner_problems(settings: Settings, bound: Mapping[str, BoundTask]) -> dict[str, InnerProblem]:
    """What the training works on, by the name of the task.

    Raises:
        TypeError: the estimator takes other arguments, or is none.
        ValueError: a value is out of its range, or the horizon is shorter than an unroll.
    """
    problems = {}
    for name, task in bound.items():
        horizon = settings.horizons[name]
        estimator = _estimator(settings, name, task)
        if horizon < estimator.unroll_length:
            raise ValueError(
                f"horizon must be at least the unroll_length of the estimator, "
                f"{estimator.unroll_length}, got {horizon}."
            )
        problems[name] = InnerProblem(
            task=name,
            unroll=task.heldout,
            horizon=horizon,
            # as many seeds as chains, so that the inner step is compiled once
            num_chains=max(1, estimator.num_inner_steps // estimator.unroll_length),
            estimator=estimator,
        )
    return problems


def _estimator(settings: Settings, name: str, task: BoundTask) -> SharedEstimator:
    truncation = settings.truncation_of(name)
    return as_shared(
        built(
            settings.estimator,
            "estimator",
            GradientEstimator,
            unroll=task.unroll,
            truncation=truncation,
        )
    )


def trained(
    settings: Settings,
    bound: Mapping[str, BoundTask],
    problems: Mapping[str, InnerProblem],
    run: RunInFolder,
    watching: Watching,
) -> MetaTrained:
    """Run it.

    Raises:
        ValueError: the checkpoint of the folder does not fit, or theta could not be written there.
        RunError: see ``Training.run``.
        KeyboardInterrupt: Ctrl-C came twice.
    """
    optimizer = next(iter(bound.values())).optimizer
    node, obstacle = _node(settings, optimizer.spec)
    if obstacle and run.path is not None:
        raise ValueError(obstacle)

    outer_optimizer, schedule = settings.outer
    check_outer(outer_optimizer, schedule)
    table = MetricsTable() if run.path is None else MetricsFile(str(run.path), FLUSH_EVERY)
    stop = StopAtInterrupt()
    training = assemble(
        Parts(
            optimizer=optimizer,
            problems=problems,
            weights=settings.weights,
            outer_optimizer=outer_optimizer,
            schedule=schedule,
            seed=settings.seed,
            max_steps=settings.steps,
            trainer=_trainer(settings),
            callbacks=watching.callbacks_of(run.path, stop),
            loggers=[table, *watching.loggers],
            folder=run.path,
            checkpoint=run.checkpoint,
        )
    )

    run.keep_identity()
    record = theta_record(
        {name: task.unroll for name, task in bound.items()}, _origin(settings, problems, node)
    )
    try:
        training.run()
    except InterruptedTwice:
        raise KeyboardInterrupt from None

    record["provenance"] |= training.spent()
    optimizer.zero_grad()
    if run.path is not None:
        save_theta(run.path, dict(optimizer.named_parameters()), record)
    is_early = training.trainer.global_step < settings.steps
    return MetaTrained(
        optimizer=optimizer,
        history=_history(table),
        interrupted=stop.interrupted and is_early,
        tasks=bound,
        metadata=record,
        obstacle=obstacle,
    )


def _trainer(settings: Settings) -> partial[lightning.Trainer]:
    """The constructor of the trainer, as configs/trainer has it, of one process."""
    return partial(
        lightning.Trainer,
        max_steps=settings.steps,
        max_epochs=-1,
        gradient_clip_val=settings.gradient_clip,
        log_every_n_steps=1,
        devices=1,
        enable_checkpointing=False,  # the callback does it
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )


def _node(settings: Settings, spec: PermutationSpec) -> tuple[dict[str, Any], str]:
    """What ``theta.json`` says of the optimizer, and why it cannot; one of the two is empty."""
    try:
        node = node_of(settings.optimizer)
        # what is ours comes back without anybody's trust: whether it does is seen before training
        if construct.names_only_ours(node):
            construct.build(node, spec)
    except ValueError as error:
        reason = str(error).rstrip(".")
        return {}, f"theta of this training cannot be written to a folder: {reason}."
    return node, ""


def _origin(
    settings: Settings, problems: Mapping[str, InnerProblem], node: Mapping[str, Any]
) -> Origin:
    horizons = settings.horizons.values()
    horizon = settings.horizons if len(set(horizons)) > 1 else next(iter(horizons))
    return Origin(
        optimizer_name=settings.label,
        meta_optimizer=node,
        seed=settings.seed,
        command=(
            f"learned_opt.meta_train(..., steps={settings.steps}, horizon={horizon}, "
            f"seed={settings.seed})"
        ),
        num_tasks={name: problem.estimator.num_tasks for name, problem in problems.items()},
        # a task that is an object tells no more than its description
        task_configs={},
    )


def _history(table: MetricsTable | MetricsFile) -> pd.DataFrame:
    """The metrics of all outer steps, those before a resume included."""
    if isinstance(table, MetricsTable):
        return pd.DataFrame(table.rows)
    return pd.read_csv(table.path) if table.path.is_file() else pd.DataFrame({"step": []})
