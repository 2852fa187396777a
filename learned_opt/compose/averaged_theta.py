"""The average of theta that a meta-training has kept: on the disk, and beside theta in tables."""

from collections.abc import Mapping
from copy import copy
from pathlib import Path
from typing import Any

from learned_opt.compose.inner_problems import Problem
from learned_opt.deploy.weights import write_theta
from learned_opt.evaluation.setting import Contender
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.run_folder import RunFolder
from learned_opt.training.callbacks.theta_average import ThetaAverage

Metadata = dict[str, Any]  # content of a theta.json


def save(folder: Path, average: ThetaAverage, metadata: Mapping[str, Any]) -> None:
    """Write ``theta_average.safetensors`` and its JSON, which ``evaluate theta=`` takes.

    Args:
        folder: of the run.
        average: of its training.
        metadata: what the ``theta.json`` of theta itself says.
    """
    theta = dict(average.optimizer.named_parameters())
    write_theta(RunFolder(folder).theta_average, theta, _described(average, metadata))


def contender(
    problems: Mapping[str, Problem], average: ThetaAverage, metadata: Mapping[str, Any], name: str
) -> Contender:
    """The average as an optimizer to compare, on the inner loops of theta itself.

    Args:
        problems: the tasks of the meta-training, with the inner loops that are compiled already.
        average: of the training.
        metadata: as of ``save``.
        name: of theta itself in the tables.
    """
    optimizer = average.optimizer
    unrolls = {}
    for task, problem in problems.items():
        unrolls[task] = _with_theta(problem.heldout, optimizer.rebind(problem.optimizer.spec))

    return Contender(
        averaged_name(name),
        optimizer.rebind,
        {"config": metadata["meta_optimizer"], "average": average.decay},
        trained=_described(average, metadata),
        unrolls=unrolls,
    )


def averaged_name(name: str) -> str:
    """What the average is called where its theta is called ``name``.

    >>> averaged_name("unf")
    'unf (average)'
    """
    return f"{name} (average)"


def _described(average: ThetaAverage, metadata: Mapping[str, Any]) -> Metadata:
    name = averaged_name(metadata["optimizer_name"])
    decay = {"decay": average.decay}
    return {**metadata, "optimizer_name": name, "average": decay}


def _with_theta(unroll: Unroll, optimizer: MetaOptimizer) -> Unroll:
    """The same inner loop, compiled once, whose theta is that of another optimizer."""
    other = copy(unroll)
    other.optimizer = optimizer  # its compiled step takes theta as an argument
    return other
