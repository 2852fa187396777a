"""A meta-training from Python, run and turned into its result."""

from functools import partial

import lightning
import pandas as pd

from learned_opt.api.meta_trained import MetaTrained
from learned_opt.api.preparation import Prepared
from learned_opt.api.run_in_folder import RunInFolder
from learned_opt.api.settings import Settings
from learned_opt.api.watching import Watching
from learned_opt.deploy.weights import save_theta
from learned_opt.training.assembly import Parts, assemble
from learned_opt.training.callbacks.interrupt import InterruptedTwice, StopAtInterrupt
from learned_opt.training.metrics_file import MetricsFile
from learned_opt.training.metrics_table import MetricsTable
from learned_opt.training.theta_record import Origin, theta_record

FLUSH_EVERY = 20  # rows of metrics.csv, as in configs/logger


def run_training(prepared: Prepared, run: RunInFolder, watching: Watching) -> MetaTrained:
    """Meta-train.

    Args:
        prepared: what to run.
        run: where its files go, and what it goes on from.
        watching: callbacks and loggers.

    Raises:
        ValueError: the checkpoint of the folder does not fit.
        RunError: see ``Training.run``.
        KeyboardInterrupt: Ctrl-C came twice.
    """
    settings = prepared.settings
    optimizer = prepared.optimizer
    table = MetricsTable() if run.path is None else MetricsFile(str(run.path), FLUSH_EVERY)
    stop = StopAtInterrupt()
    outer_optimizer, schedule = settings.outer
    parts = Parts(
        optimizer=optimizer,
        problems=prepared.problems,
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
        blocks=settings.blocks,
    )

    training = assemble(parts)
    run.keep_identity()
    unrolls = {name: task.unroll for name, task in prepared.tasks.items()}
    record = theta_record(unrolls, _origin(prepared))
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
        tasks=prepared.tasks,
        metadata=record,
        obstacle=prepared.obstacle,
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


def _origin(prepared: Prepared) -> Origin:
    settings = prepared.settings
    horizons = list(settings.horizons.values())
    horizon = settings.horizons if len(set(horizons)) > 1 else horizons[0]
    words = f"steps={settings.steps}, horizon={horizon}, seed={settings.seed}"

    num_tasks = {}
    for name, problem in prepared.problems.items():
        num_tasks[name] = problem.estimator.num_tasks
    return Origin(
        optimizer_name=settings.label,
        meta_optimizer=prepared.node,
        seed=settings.seed,
        command=f"learned_opt.meta_train(..., {words})",
        num_tasks=num_tasks,
        task_configs={},  # a task that is an object tells no more than its description
    )


def _history(table: MetricsTable | MetricsFile) -> pd.DataFrame:
    """The metrics of all outer steps, those before a resume included."""
    if isinstance(table, MetricsTable):
        return pd.DataFrame(table.rows)
    return pd.read_csv(table.path) if table.path.is_file() else pd.DataFrame({"step": []})
