"""From a composed config to inner problems: tasks, each with the meta-optimizer on its weights."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.compose.resolve import task_values, tasks_of
from learned_opt.core import tree
from learned_opt.core.device import resolve_device
from learned_opt.core.errors import UsageError, usage_errors
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.inner.bound_task import LoopSettings, TaskBinder
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.memory import keep_freed_memory
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.training.inner_problem import labels as labels
from tasks.base import TaskFamily


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
        """Number of meta-parameters that are trained."""
        return tree.num_elements(dict(self.optimizer.named_parameters()))


def build_problems(
    cfg: DictConfig, meta_optimizer: Mapping[str, Any], optimizer_name: str
) -> dict[str, Problem]:
    """Build the families of all tasks, one meta-optimizer for each spec, and the inner loops.

    The meta-optimizers share one theta.

    Args:
        cfg: the composed config, of one task or of a mix.
        meta_optimizer: the config node of the meta-optimizer: the composed one, or one of a file.
        optimizer_name: its name in tables.

    Returns:
        dict[str, Problem]: by the name of the task.

    Raises:
        UsageError: a value is out of its range, data are missing, a spec does not fit its network,
            or theta cannot move between the weight spaces of a mix.
    """
    keep_freed_memory()

    def constructor(spec: PermutationSpec) -> MetaOptimizer:
        with usage_errors("meta_optimizer"):
            return instantiate(meta_optimizer)(spec)

    binder: TaskBinder | None = None
    problems: dict[str, Problem] = {}
    for entry, task_config in tasks_of(cfg).items():
        with usage_errors():
            settings = _loop_settings(task_config)
            family = parametrised(task_config, instantiate(task_values(task_config)))
            name = entry or family.name
            if binder is None:
                label = f"meta_optimizer {optimizer_name}"
                binder = TaskBinder(constructor, task_config.seed, label)
            bound = binder.bind(name, family, settings, task_config.horizon)
            benchmark: Benchmark = instantiate(task_config.benchmark)
        _check_baselines(benchmark, bound.optimizer.spec)

        problems[name] = Problem(
            cfg=task_config,
            optimizer=bound.optimizer,
            unroll=bound.unroll,
            heldout=bound.heldout,
            benchmark=benchmark,
            num_params=bound.num_params,
            optimizer_name=optimizer_name,
        )

    return problems


def parametrised(cfg: DictConfig, family: TaskFamily) -> TaskFamily:
    """A task family whose network is parametrised as the config says.

    Args:
        cfg: of the task; configs of before there was a choice have none.
        family: the task with its network as it is.

    Raises:
        ValueError: an argument of the parametrisation is out of its range.
    """
    node = cfg.get("parametrisation")
    return instantiate(node)(family) if node else family


def _check_baselines(benchmark: Benchmark, spec: PermutationSpec) -> None:
    """Build each baseline once: its arguments are refused before the training, not behind it.

    One that takes its arguments, but does not fit the task, is left out of the comparison.
    """
    for name, constructor in benchmark.baselines.items():
        key = f"benchmark.baselines.{name}"
        with torch.random.fork_rng(devices=[]), usage_errors(key), suppress(ValueError):
            constructor(spec, lr=benchmark.lowest_lr)


def build_problem(
    cfg: DictConfig, meta_optimizer: Mapping[str, Any], optimizer_name: str
) -> Problem:
    """``build_problems`` for what takes a single task.

    Raises:
        UsageError: the same, or there is a mix.
    """
    if "mix" in cfg:
        raise UsageError(f"this command takes one task, got a mix of {', '.join(cfg.mix)}.")
    (problem,) = build_problems(cfg, meta_optimizer, optimizer_name).values()
    return problem


def _loop_settings(cfg: DictConfig) -> LoopSettings:
    return LoopSettings(
        compile=cfg.compile,
        device=resolve_device(cfg.device),
        precision=cfg.precision,
        augment=instantiate(cfg.augment) if "augment" in cfg else None,
    )
