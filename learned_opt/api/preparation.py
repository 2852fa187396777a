"""From the settings of a meta-training to objects that can run; whatever is wrong is told here."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from learned_opt.api.arguments import built
from learned_opt.api.settings import Settings
from learned_opt.deploy import construct
from learned_opt.deploy.description import node_of
from learned_opt.estimators.base import GradientEstimator
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.estimators.single_process import as_shared
from learned_opt.inner.bound_task import BoundTask, LoopSettings, TaskBinder
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.training.inner_problem import InnerProblem
from learned_opt.training.parameter_groups import parameter_groups

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Prepared:
    """A meta-training that can run.

    Args:
        settings: of it.
        tasks: by name, each with the meta-optimizer on its weights.
        problems: what is trained on, by the name of the task.
        node: what ``theta.json`` says of the optimizer.
        obstacle: why ``theta.json`` cannot say it; empty where it can.
    """

    settings: Settings
    tasks: Mapping[str, BoundTask]
    problems: Mapping[str, InnerProblem]
    node: Mapping[str, Any]
    obstacle: str

    @property
    def optimizer(self) -> MetaOptimizer:
        """The meta-optimizer on the weights of the first task."""
        return next(iter(self.tasks.values())).optimizer


def prepare(settings: Settings, loops: LoopSettings, *, is_kept: bool) -> Prepared:
    """Build the tasks, the optimizer and the estimators.

    Args:
        settings: of the meta-training.
        loops: how the inner steps run.
        is_kept: whether theta will be written to a folder at the end.

    Raises:
        TypeError: a constructor takes other arguments, or makes something else; names it.
        ValueError: a task cannot train, a value is out of its range, the optimizer does not fit a
            task, or theta could not be written.
    """
    parameter = torch.nn.Parameter(torch.zeros(1))
    outer_optimizer, _ = settings.outer
    built(partial(outer_optimizer, [parameter]), "outer_optimizer", torch.optim.Optimizer)

    tasks = _bound_tasks(settings, loops)
    first = next(iter(tasks.values()))
    _check_outer(settings, dict(first.optimizer.named_parameters()))
    problems = _inner_problems(settings, tasks)
    node, obstacle = _node(settings, first.optimizer.spec)
    if obstacle and is_kept:
        raise ValueError(obstacle)
    if obstacle:
        log.warning("%s", obstacle)
    return Prepared(settings, tasks, problems, node, obstacle)


def _check_outer(settings: Settings, theta: Mapping[str, Tensor]) -> None:
    """Build the outer optimizer and its schedule once, on the theta that they will train."""
    outer_optimizer, schedule = settings.outer
    parameters: Any = list(theta.values())
    if settings.blocks:
        parameters = parameter_groups(theta, settings.blocks, outer_optimizer)
    outer = outer_optimizer(parameters)
    if schedule is not None:
        built(partial(schedule, outer), "schedule", object)


def _bound_tasks(settings: Settings, loops: LoopSettings) -> dict[str, BoundTask]:
    """The tasks, each with the meta-optimizer on its weights."""

    def constructor(spec: PermutationSpec) -> MetaOptimizer:
        return built(partial(settings.optimizer, spec), "optimizer", MetaOptimizer)

    binder = TaskBinder(constructor, settings.seed, f"optimizer {settings.label}")
    bound = {}
    for name, family in settings.tasks.items():
        bound[name] = binder.bind(name, family, loops, settings.horizons[name])
    return bound


def _inner_problems(settings: Settings, bound: Mapping[str, BoundTask]) -> dict[str, InnerProblem]:
    """What the training works on, by the name of the task."""
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
