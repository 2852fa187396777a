"""Meta-training from Python: the run of the command ``train``, up to its theta."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.loggers import Logger

from learned_opt.api import arguments
from learned_opt.api.meta_trained import MetaTrained
from learned_opt.api.preparation import prepare
from learned_opt.api.run_in_folder import RunInFolder
from learned_opt.api.settings import Settings
from learned_opt.api.training_run import run_training
from learned_opt.api.watching import Watching
from learned_opt.core.device import resolve_device
from learned_opt.estimators.base import GradientEstimator
from learned_opt.inner.bound_task import LoopSettings
from learned_opt.inner.truncation import Truncation
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.memory import keep_freed_memory
from learned_opt.training.quiet_lightning import quiet_for_a_while
from tasks.base import TaskFamily


def meta_train(
    task: TaskFamily | Sequence[TaskFamily] | Mapping[str, TaskFamily],
    optimizer: Callable[..., MetaOptimizer],
    estimator: Callable[..., GradientEstimator],
    steps: int,
    *,
    horizon: int | Mapping[str, int] = 200,
    seed: int = 0,
    name: str | None = None,
    outer_optimizer: Callable[..., torch.optim.Optimizer] | None = None,
    schedule: Callable[..., Any] | None = None,
    blocks: Mapping[str, Mapping[str, Any]] | None = None,
    gradient_clip: float | None = 1.0,
    truncation: Truncation | None = None,
    augment: Callable[[TaskFamily], TaskFamily] | None = None,
    weights: Mapping[str, float] | None = None,
    folder: str | Path | None = None,
    checkpoint_every: int = 100,
    validate_every: int | None = 200,
    callbacks: Sequence[lightning.Callback] = (),
    logger: Logger | Sequence[Logger] | None = None,
    device: str = "auto",
    compile: bool = True,
    precision: str = "float32",
    progress: bool = True,
) -> MetaTrained:
    """Meta-train a learned optimizer on a task; the same numbers as the command gives, to the bit.

    Without ``folder`` nothing is written. With it, a call that was killed goes on where its last
    checkpoint is when it is made again, bit for bit as if it had not been killed; one that is done
    comes back at once, and one with more ``steps`` makes those that are new. The random numbers of
    the caller stay as they are.

    Ctrl-C, or the stop button of a notebook, ends the training after the outer step in flight, and
    what it has come to is returned, ``interrupted``; at a second one ``KeyboardInterrupt`` is
    raised and nothing is returned.

    Args:
        task: what inner networks train on; several, in a list or under names, are a mix, and the
            optimizer must fit the weights of all.
        optimizer: constructor ``(spec) -> MetaOptimizer``: the class, or ``functools.partial`` of
            it.
        estimator: constructor ``(unroll=, truncation=) -> GradientEstimator``, as
            ``functools.partial`` of its class gives it.
        steps: outer steps, each one update of theta.
        horizon: inner steps of an inner training; of each task where it is a mapping.
        seed: root of all randomness.
        name: of the optimizer in tables; None for that of its class.
        outer_optimizer: constructor ``(parameters) -> torch.optim.Optimizer``, which trains theta;
            None for that of the commands, Adam at a rate of 0.01 that falls along a cosine.
        schedule: constructor ``(outer optimizer) -> learning-rate schedule``, stepped once each
            outer step; None for none. ``block_schedule`` has one for each block.
        blocks: pattern -> settings of the outer optimizer that differ there, such as
            ``{"equivariant": {"lr": 2e-3}, "*": {}}``: names of tensors of theta, wildcards
            allowed, or ``scalars``, ``pointwise``, ``equivariant``; the first that matches counts.
        gradient_clip: largest global norm of a meta-gradient; None for no limit.
        truncation: inner steps until a chain restarts; None for ``horizon``.
        augment: constructor ``(task) -> task`` of what is trained on; validation is on the task as
            it is.
        weights: of the tasks of a mix; None for equal ones.
        folder: of the run, for checkpoints, metrics and theta; None to write nothing.
        checkpoint_every: outer steps between two checkpoints.
        validate_every: outer steps between two validations on seeds that are not trained on, the
            last step included; None for none.
        callbacks: Lightning callbacks of your own; they act behind the others. ``ThetaAverage``
            averages theta, its ``optimizer`` has the average at the end; ``SignalRates`` scales
            the rates of blocks by their measured signal.
        logger: Lightning logger or loggers of your own.
        device: ``auto`` (the GPU where there is one), ``cpu`` or ``cuda``.
        compile: compile the inner step.
        precision: of the matrix products of the meta-optimizer, ``float32`` or ``bf16``.
        progress: show how far it is, on stderr.

    Returns:
        MetaTrained: with ``optimizer``, ``theta``, ``history`` and ``save``.

    Raises:
        TypeError: an argument is something else than what it must be; names it.
        ValueError: a value is out of its range, or does not fit; names the argument.
        RunError: nothing stayed finite for too long, or a file cannot be written.
        KeyboardInterrupt: at the second Ctrl-C.

    The optimizer that the commands call ``unf``, ready for ``optimizer``:

    >>> from functools import partial
    >>> from learned_opt.optimizers.unf import UNFOptimizer
    >>> from learned_opt.unf.layers import PointwiseUNFLinear
    >>> head = partial(PointwiseUNFLinear, init="zero")
    >>> unf = partial(UNFOptimizer, head=head, alpha=1.0, beta=0.03, normalisation="channel")

    >>> from learned_opt.estimators.pes import PES
    >>> from tasks.quadratic import Quadratic
    >>> pes = partial(PES, num_tasks=4, unroll_length=5, sigma=0.03)
    >>> result = meta_train(
    ...     Quadratic(), unf, pes, steps=2, horizon=10, compile=False, progress=False
    ... )
    >>> result.history["step"].tolist()
    [0, 1]
    """
    tasks = arguments.named_tasks(task)
    names = list(tasks)
    settings = Settings(
        tasks=tasks,
        optimizer=optimizer,
        estimator=estimator,
        steps=steps,
        horizons=arguments.of_each(horizon, names, "horizon"),
        seed=seed,
        outer_optimizer=outer_optimizer,
        schedule=schedule,
        blocks={} if blocks is None else blocks,
        gradient_clip=gradient_clip,
        truncation=truncation,
        augment=augment,
        weights=arguments.of_each(1.0 if weights is None else weights, names, "weights"),
        precision=precision,
        name=name,
    )
    watching = Watching(checkpoint_every, validate_every, callbacks, logger, progress)
    loops = LoopSettings(compile, resolve_device(device), precision, augment)
    keep_freed_memory()

    path = None if folder is None else Path(folder)

    with quiet_for_a_while(), torch.random.fork_rng(devices=[]):
        # before the folder is made: what is refused leaves nothing
        prepared = prepare(settings, loops, is_kept=path is not None)
        with RunInFolder(path, settings) as run:
            return run_training(prepared, run, watching)
