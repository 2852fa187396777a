"""What ``theta.json`` says of a theta: how to rebuild its optimizer and where it comes from."""

from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.command_line import command
from learned_opt.compose.inner_problems import Problem, labels
from learned_opt.evaluation.seeded_runs import VALID
from learned_opt.runtime.provenance import provenance


def metadata(cfg: DictConfig, problems: Mapping[str, Problem]) -> dict[str, Any]:
    """What ``theta.json`` says beside the evaluation."""
    any_problem = next(iter(problems.values()))
    specs = {}
    tasks = {}
    task_configs = {}
    for name, problem in problems.items():
        specs[name] = problem.optimizer.spec.as_dict()
        tasks[name] = problem.unroll.family.describe()
        task_configs[name] = task_identity(problem.cfg)

    origin = provenance(cfg.seed, any_problem.unroll.device, command())
    origin["num_tasks"] = _num_tasks(problems)

    return {
        "optimizer_name": any_problem.optimizer_name,
        "meta_optimizer": OmegaConf.to_container(cfg.meta_optimizer, resolve=True),
        "specs": specs,
        "tasks": tasks,
        "task_configs": task_configs,
        "draws": {"meta-training": f"roots of seed {cfg.seed}", "validation": VALID},
        "provenance": origin,
    }


def task_identity(cfg: DictConfig) -> dict[str, Any]:
    """What a task is made of, without its name and data.

    Those two are in its description, with a fingerprint of the data.
    """
    task = OmegaConf.to_container(cfg.task, resolve=True)
    assert isinstance(task, dict)
    return {str(key): value for key, value in task.items() if key not in ("name", "data")}


def _num_tasks(problems: Mapping[str, Problem]) -> str:
    """Numbers where the command may say auto."""
    numbers = []
    for label, problem in zip(labels(problems), problems.values(), strict=True):
        numbers.append(f"{label} {problem.cfg.estimator.num_tasks}".strip())
    return " ".join(numbers)
