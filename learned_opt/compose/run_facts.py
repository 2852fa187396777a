"""What a meta-training is about to do, as names and values for the first screen."""

from collections.abc import Mapping
from pathlib import Path

from learned_opt.compose.inner_problems import Problem
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.runtime.machine import busy_machine

HIDDEN = ("task", "fingerprint", "num_train", "num_test")  # of a task's description


def facts_of_run(
    problems: Mapping[str, Problem],
    estimator_name: str,
    estimators: Mapping[str, SharedEstimator],
    memory: str,
    folder: Path,
) -> list[tuple[str, str]]:
    """What is about to run.

    Args:
        problems: by the name of the task.
        estimator_name: choice of the config group.
        estimators: by the name of the task.
        memory: what an outer step is predicted to need.
        folder: of the run.
    """
    facts = []
    for name, problem in problems.items():
        facts += _of_task(name, problem, estimator_name, estimators[name])

    problem = next(iter(problems.values()))
    parameters = f"{problem.num_theta:,} parameters"

    return [
        *facts,
        ("meta-optimizer", f"{problem.optimizer_name}, theta has {parameters}"),
        ("memory", memory),
        ("device", str(problem.unroll.device)),
        *_of_machine(),
        ("run folder", str(folder)),
    ]


def _of_machine() -> list[tuple[str, str]]:
    sentence = busy_machine()
    return [("machine", sentence)] if sentence else []


def _of_task(
    name: str, problem: Problem, estimator_name: str, estimator: SharedEstimator
) -> list[tuple[str, str]]:
    description = problem.unroll.family.describe()
    shown = [f"{key} {value}" for key, value in description.items() if key not in HIDDEN]
    sizes = (
        f"{estimator.num_tasks} tasks, unroll {estimator.unroll_length}, "
        f"horizon {problem.benchmark.horizon}, "
        f"{estimator.num_inner_steps:,} inner steps per estimate"
    )
    if estimator.num_gradients != estimator.num_inner_steps:
        sizes += f", {estimator.num_gradients:,} inner gradients' worth with the backward passes"

    return [
        ("task", f"{name} ({', '.join(shown)})"),
        ("inner network", f"{problem.num_params:,} parameters"),
        ("estimator", f"{estimator_name}, {sizes}"),
    ]
