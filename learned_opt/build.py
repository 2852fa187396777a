"""From a composed config to objects; the only place that instantiates."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt import tree
from learned_opt.cli import UsageError
from learned_opt.evaluation.benchmark import VALID
from learned_opt.evaluation.compare import Benchmark
from learned_opt.memory import keep_freed_memory
from learned_opt.meta.unroll import Unroll
from learned_opt.mixture import task_configs
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.provenance import provenance
from learned_opt.symmetry.check import check_function
from learned_opt.symmetry.infer import infer_from_function
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.tree import Tree
from tasks.base import TaskFamily

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Problem:
    """A task and the meta-optimizer on its weight space."""

    cfg: DictConfig  # of this task alone
    optimizer: MetaOptimizer
    unroll: Unroll  # of what is trained on, augmented where the config says so
    heldout: Unroll  # of the task as it is: for validation and comparison
    benchmark: Benchmark
    num_params: int  # of the inner network
    optimizer_name: str

    @property
    def num_theta(self) -> int:
        """Number of meta-parameters."""
        return tree.num_elements(dict(self.optimizer.named_parameters()))


@contextmanager
def usage_errors() -> Iterator[None]:
    """What constructors refuse is bad input: one sentence, exit code 2."""
    try:
        yield
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        raise UsageError(str(error)) from error
    except TypeError as error:
        raise UsageError(f"a value has the wrong type or a key is unknown: {error}.") from error


def build_problems(cfg: DictConfig, meta_optimizer: DictConfig, optimizer_name: str) -> dict[str, Problem]:
    """Build the families of all tasks, one meta-optimizer for each spec over the same theta, and the inner loops.

    Args:
        cfg: the composed config, of one task or of a mix.
        meta_optimizer: the config node of the meta-optimizer: the composed one, or a checkpoint's.
        optimizer_name: its name in tables.

    Returns:
        dict[str, Problem]: by the name of the task.

    Raises:
        UsageError: a value is out of its range, data are missing, a spec does not fit its network, or theta cannot
            move between the weight spaces of a mix.
    """
    keep_freed_memory()
    problems: dict[str, Problem] = {}
    for entry, own in tasks_of(cfg).items():
        with usage_errors():
            device = resolve_device(own.device)
            family: TaskFamily = instantiate(own.task)
            name = entry or family.name
            params, spec = symmetry_of(family)
            if problems:
                optimizer = _rebound(problems, spec, name)
            else:
                torch.manual_seed(own.seed)
                optimizer = instantiate(meta_optimizer)(spec).to(device)
            heldout = unroll = Unroll(family, optimizer, own.compile, device, own.precision)
            if "augment" in own:
                unroll = Unroll(instantiate(own.augment)(family), optimizer, own.compile, device, own.precision)
            benchmark: Benchmark = instantiate(own.benchmark)
        size = tree.num_elements(params)
        problems[name] = Problem(own, optimizer, unroll, heldout, benchmark, size, optimizer_name)
    return problems


def tasks_of(cfg: DictConfig) -> dict[str | None, DictConfig]:
    """The config of every task of a composed run, by its entry in the mix; None for a single task."""
    if "mix" not in cfg:  # a replay has no Hydra
        return task_configs(cfg, [], [])
    composed = HydraConfig.get()
    return task_configs(cfg, composed.overrides.task, list(composed.runtime.choices))


def _rebound(problems: dict[str, Problem], spec: PermutationSpec, name: str) -> MetaOptimizer:
    first = next(iter(problems))
    try:
        return problems[first].optimizer.rebind(spec)
    except ValueError as error:
        kind = problems[first].optimizer_name
        raise ValueError(f"meta_optimizer {kind} cannot go from task {first} to task {name}: {error}") from error


def build_problem(cfg: DictConfig, meta_optimizer: DictConfig, optimizer_name: str) -> Problem:
    """``build_problems`` for what takes a single task.

    Raises:
        UsageError: the same, or there is a mix.
    """
    if "mix" in cfg:
        raise UsageError(f"this command takes one task, got a mix of {', '.join(cfg.mix)}.")
    (problem,) = build_problems(cfg, meta_optimizer, optimizer_name).values()
    return problem


def symmetry_of(family: TaskFamily) -> tuple[Tree, PermutationSpec]:
    """The family's permutation spec, its own or inferred from its loss, and the parameters on which it was proved.

    Raises:
        ValueError: the spec does not fit, or is no symmetry of the loss; names the parameter and axis.
    """
    source = torch.Generator().manual_seed(0)
    task = family.sample(source)
    params, batch = family.init(source, task), family.batch(source, task)
    params = tree.tree_map(lambda p: p + 0.1 * torch.randn(p.shape, generator=source), params)  # biases are 0 at first

    def loss(values: Tree) -> list[torch.Tensor]:
        return [family.loss(values, batch, task)]

    axes = family.permutation_axes()
    spec = infer_from_function(loss, params) if axes is None else PermutationSpec(*axes).measure(params)
    with torch.no_grad():
        report = check_function(loss, params, spec, source, num_draws=1, tolerance=1e-4)  # float32 losses
    if not report.passed:
        raise ValueError(f"the permutation spec of task {family.name!r} is wrong: {report.findings[0]}.")
    for name, names in spec.axes.items():
        log.debug("task %s: %s %s has axes %s", family.name, name, tuple(params[name].shape), ", ".join(names))
    return params, spec


def labels(problems: dict[str, Problem]) -> list[str]:
    """What tells the tasks of a run apart: their names; one alone needs none."""
    return list(problems) if len(problems) > 1 else [""]


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
        "provenance": provenance(cfg.seed, any_problem.unroll.device) | {"num_tasks": _num_tasks(problems)},
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


def resolve_device(name: str) -> str:
    """``auto`` is the GPU when there is one.

    Raises:
        ValueError: an unknown name, or cuda where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
