"""What ``theta.json`` keeps of a meta-training, whoever has asked for it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from learned_opt.evaluation.seeded_runs import VALID
from learned_opt.inner.unroll import Unroll
from learned_opt.runtime.provenance import provenance
from learned_opt.training.inner_problem import labels


@dataclass(frozen=True)
class Origin:
    """Where a theta comes from.

    Args:
        optimizer_name: of the meta-optimizer in tables.
        meta_optimizer: node from which ``deploy.construct`` builds it.
        seed: root of all randomness.
        command: as a reader would type it.
        num_tasks: tasks of the estimator, by the name of the task.
        task_configs: what tasks were made of, by name; empty where that is not known.
    """

    optimizer_name: str
    meta_optimizer: Any
    seed: int
    command: str
    num_tasks: Mapping[str, Any]
    task_configs: Mapping[str, Any]


def theta_record(unrolls: Mapping[str, Unroll], origin: Origin) -> dict[str, Any]:
    """What ``theta.json`` says beside the evaluation.

    Args:
        unrolls: the inner loops of what was trained on, by the name of the task.
        origin: where theta comes from.
    """
    specs = {}
    tasks = {}
    for name, unroll in unrolls.items():
        specs[name] = unroll.optimizer.spec.as_dict()
        tasks[name] = unroll.family.describe()

    device = next(iter(unrolls.values())).device
    facts = provenance(origin.seed, device, origin.command)
    facts["num_tasks"] = _num_tasks(origin.num_tasks)

    configs = {"task_configs": dict(origin.task_configs)} if origin.task_configs else {}
    return {
        "optimizer_name": origin.optimizer_name,
        "meta_optimizer": origin.meta_optimizer,
        "specs": specs,
        "tasks": tasks,
        **configs,
        "draws": {"meta-training": f"roots of seed {origin.seed}", "validation": VALID},
        "provenance": facts,
    }


def _num_tasks(num_tasks: Mapping[str, Any]) -> str:
    """Numbers where the command may say auto."""
    numbers = []
    for label, number in zip(labels(num_tasks), num_tasks.values(), strict=True):
        numbers.append(f"{label} {number}".strip())
    return " ".join(numbers)
