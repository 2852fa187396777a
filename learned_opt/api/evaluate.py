"""The figures of one optimizer on held-out seeds."""

from collections.abc import Mapping, Sequence

import pandas as pd

from learned_opt.api import arguments
from learned_opt.api.compare import Budget, Tasks, run
from learned_opt.api.contenders import Learned
from learned_opt.core.device import resolve_device
from learned_opt.deploy.foreign_classes import trusted_modules
from learned_opt.evaluation.results import heldout_figures
from learned_opt.inner.bound_task import LoopSettings

FIGURES = [
    "task",
    "horizon",
    "seed",
    "initial_loss",
    "mean_loss",
    "final_loss",
    "min_loss",
    "diverged",
    "ms_per_step",
]


def evaluate(
    optimizer: Learned,
    task: Tasks,
    horizon: int | Mapping[str, int] = 200,
    *,
    seeds: int | range = 32,
    trust: Sequence[str] = (),
    device: str = "auto",
    compile: bool = True,
    precision: str = "float32",
    progress: bool = True,
) -> pd.DataFrame:
    """Train inner networks on held-out seeds and measure them; nothing is written.

    Args:
        optimizer: a result of ``meta_train``; a folder, packaged name, file or hub id of a theta;
            a ``LearnedOptimizer``; a ``MetaOptimizer``; or a constructor of one.
        task: what inner networks train on; several in a list or under names.
        horizon: inner steps of every run; of each task where it is a mapping.
        seeds: how many held-out seeds from 0 on, or a range of them.
        trust: modules to import where the files of a theta name classes of them.
        device: ``auto`` (the GPU where there is one), ``cpu`` or ``cuda``.
        compile: compile the inner steps.
        precision: of the matrix products of the optimizer, ``float32`` or ``bf16``.
        progress: show how far it is, on stderr.

    Returns:
        pd.DataFrame: a row for each task and seed: losses (infinite where the run diverged),
        milliseconds of an inner step, and what the task measures on held-out data.

    Raises:
        TypeError: an argument is something else than what it must be; names it.
        ValueError: a value is out of its range, or the theta is missing, damaged or fits no task.
        ConnectionError: the hub cannot be reached.

    >>> from functools import partial
    >>> from learned_opt.optimizers.hand.references import make_adam
    >>> from tasks.quadratic import Quadratic
    >>> adam = partial(make_adam, lr=0.3)
    >>> figures = evaluate(adam, Quadratic(), 10, seeds=2, compile=False, progress=False)
    >>> figures["seed"].tolist()
    [0, 1]
    """
    tasks = arguments.named_tasks(task)
    loops = LoopSettings(compile, resolve_device(device), precision)
    budget = Budget(seeds=seeds)
    benchmarks = budget.benchmarks(arguments.of_each(horizon, list(tasks), "horizon"), {})
    frame = run({"": optimizer}, tasks, benchmarks, loops, trusted_modules(trust), progress).frame
    return pd.DataFrame(frame, columns=[*FIGURES, *heldout_figures(frame)])
