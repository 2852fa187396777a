"""What ``theta.json`` says of a theta: how to rebuild its optimizer and where it comes from."""

from typing import Any

from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.command_line import command
from learned_opt.compose.inner_problems import Problem, labels
from learned_opt.evaluation.seeded_runs import VALID
from learned_opt.runtime.provenance import provenance


def metadata(cfg: DictConfig, problems: dict[str, Problem]) -> dict[str, Any]:
    """What ``theta.json`` says beside the evaluation: how to rebuild the optimizer and where it comes from."""
    any_problem = next(iter(problems.values()))
    return {
        "optimizer_name": any_problem.optimizer_name,
        "meta_optimizer": OmegaConf.to_container(cfg.meta_optimizer, resolve=True),
        "specs": {name: problem.optimizer.spec.as_dict() for name, problem in problems.items()},
        "tasks": {name: problem.unroll.family.describe() for name, problem in problems.items()},
        "task_configs": {name: task_identity(problem.cfg) for name, problem in problems.items()},
        "draws": {"meta-training": f"roots of seed {cfg.seed}", "validation": VALID},
        "provenance": provenance(cfg.seed, any_problem.unroll.device, command())
        | {"num_tasks": _num_tasks(problems)},
    }


def task_identity(cfg: DictConfig) -> dict[str, Any]:
    """What a task is made of, without its name and data: those are in its description, with a fingerprint."""
    task = OmegaConf.to_container(cfg.task, resolve=True)
    assert isinstance(task, dict)
    return {str(key): value for key, value in task.items() if key not in ("name", "data")}


def _num_tasks(problems: dict[str, Problem]) -> str:
    """Numbers where the command may say auto."""
    return " ".join(
        f"{label} {p.cfg.estimator.num_tasks}".strip()
        for label, p in zip(labels(problems), problems.values(), strict=True)
    )
