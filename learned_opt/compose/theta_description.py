"""What ``theta.json`` says of a theta: how to rebuild its optimizer and where it comes from."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig

from learned_opt.compose.command_line import command
from learned_opt.compose.inner_problems import Problem
from learned_opt.compose.recorded_values import recorded_values
from learned_opt.training.theta_record import Origin, theta_record


def metadata(cfg: DictConfig, problems: Mapping[str, Problem]) -> dict[str, Any]:
    """What ``theta.json`` says beside the evaluation."""
    any_problem = next(iter(problems.values()))
    num_tasks = {}
    task_configs = {}
    for name, problem in problems.items():
        num_tasks[name] = problem.cfg.estimator.num_tasks
        task_configs[name] = task_identity(problem.cfg)

    origin = Origin(
        optimizer_name=any_problem.optimizer_name,
        meta_optimizer=recorded_values(cfg.meta_optimizer),
        seed=cfg.seed,
        command=command(),
        num_tasks=num_tasks,
        task_configs=task_configs,
    )
    return theta_record({name: problem.unroll for name, problem in problems.items()}, origin)


def task_identity(cfg: DictConfig) -> dict[str, Any]:
    """What a task is made of, without its name and data.

    Those two are in its description, with a fingerprint of the data.
    """
    task = recorded_values(cfg.task)
    return {key: value for key, value in task.items() if key not in ("name", "data")}
