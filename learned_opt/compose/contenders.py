"""From a composed config to what an evaluation compares: settings, and contenders on them."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt.compose import trained_theta
from learned_opt.compose.inner_problems import Problem, parametrised
from learned_opt.compose.recorded_values import recorded_values
from learned_opt.compose.resolve import task_values, tasks_of
from learned_opt.compose.setting_configs import SettingConfig, setting_configs
from learned_opt.compose.theta_description import task_identity
from learned_opt.core.device import resolve_device
from learned_opt.deploy.foreign_classes import trusted_modules
from learned_opt.evaluation.benchmark import Benchmark
from learned_opt.evaluation.setting import Contender, Setting, meta_trainings
from learned_opt.evaluation.theta_contender import find_theta, theta_contender
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.memory import keep_freed_memory

Metadata = dict[str, Any]  # content of a theta.json


def build_settings(cfg: DictConfig) -> Iterator[Setting]:
    """Every task at every horizon, then the points of its card.

    Each is built when its turn comes; data are loaded once.

    Args:
        cfg: the composed config of ``evaluate``.

    Raises:
        ValueError: a value is out of its range, data are missing, or a spec does not fit its
            network.
    """
    keep_freed_memory()
    tasks = {entry or task_cfg.task.name: task_cfg for entry, task_cfg in tasks_of(cfg).items()}

    loaded: dict[str, Any] = {}
    # all configs before the first setting: a malformed card is refused before anything runs
    for config in list(setting_configs(tasks)):
        yield _setting(config, loaded)


def _setting(config: SettingConfig, loaded: dict[str, Any]) -> Setting:
    cfg = config.cfg
    family = parametrised(cfg, _family(cfg, loaded))
    _, spec = symmetry_of(family)

    identity = task_identity(cfg)
    if "augment" in cfg:  # nothing is trained here, so an augmentation is part of the question
        family = instantiate(cfg.augment)(family)
        identity = {**identity, "augment": OmegaConf.to_container(cfg.augment)}

    baselines = _baselines(cfg)
    return Setting(
        config.task,
        family,
        spec,
        _benchmark(cfg, baselines),
        baselines,
        identity,
        cfg.compile,
        resolve_device(cfg.device),
        cfg.precision,
        config.axis,
        config.point,
    )


def _family(cfg: DictConfig, loaded: dict[str, Any]) -> Any:
    """The task family; its data come from ``loaded`` where another setting has the same."""
    task = task_values(cfg)
    data = task.get("data")
    if not isinstance(data, dict):  # none, or the name of a file, which the task reads itself
        return instantiate(task)

    del task["data"]
    # by content: all horizons and points of a task share one copy of its data
    key = json.dumps(data, sort_keys=True)
    if key not in loaded:
        loaded[key] = instantiate(data)
    return instantiate(task, _partial_=True)(data=loaded[key])


def _benchmark(cfg: DictConfig, baselines: Sequence[Contender]) -> Benchmark:
    """The benchmark of a task, of the baselines that are asked for."""
    benchmark: Benchmark = instantiate(cfg.benchmark)
    if not benchmark.compares:
        raise ValueError("benchmark=none compares nothing; leave it out here.")

    tuned = {baseline.name: baseline.constructor for baseline in baselines if baseline.tuned}
    return replace(benchmark, baselines=tuned, tuned_for=_criteria(cfg))


def _criteria(cfg: DictConfig) -> list[str]:
    """What baselines are tuned for: as the command says, else as the benchmark does."""
    criteria = cfg.get("tuned_for")
    if criteria is None:
        # one theta is evaluated as after its training, several for their final losses
        is_one = cfg.theta is not None and not OmegaConf.is_config(cfg.theta)
        of_benchmark = list(cfg.benchmark.tuned_for)
        return of_benchmark if is_one or len(of_benchmark) == 1 else ["final_loss"]
    return [criteria] if isinstance(criteria, str) else list(criteria)


def training_settings(problems: Mapping[str, Problem]) -> Iterator[Setting]:
    """The tasks of a meta-training as they are: the comparison that ends it is a suite of them.

    None of those whose benchmark compares nothing.
    """
    for task, problem in problems.items():
        if not problem.benchmark.compares:
            continue

        unroll = problem.heldout
        yield Setting(
            task,
            unroll.family,
            problem.optimizer.spec,
            problem.benchmark,
            _baselines(problem.cfg),
            task_identity(problem.cfg),
            problem.cfg.compile,
            str(unroll.device),
            unroll.precision,
        )


def trained_contender(problems: Mapping[str, Problem], metadata: Metadata) -> Contender:
    """The optimizer that this run has meta-trained.

    Args:
        problems: its tasks, with the inner loops that are compiled already.
        metadata: what its ``theta.json`` says.
    """
    problem = next(iter(problems.values()))
    names = [baseline.name for baseline in _baselines(problem.cfg)]
    unrolls = {task: one.heldout for task, one in problems.items()}

    return Contender(
        _apart(problem.optimizer_name, names),
        problem.optimizer.rebind,
        {"config": metadata["meta_optimizer"]},
        trained=metadata,
        unrolls=unrolls,
    )


def build_learned(cfg: DictConfig) -> list[Contender]:
    """The learned optimizers of ``theta``.

    One that is called as a baseline is, is told apart by ``-learned``. Those of one name are
    meta-trainings of one optimizer, and told apart by their seeds.

    Raises:
        ValueError: a theta is missing, damaged or of another architecture, or two have the
            same name and are no such meta-trainings.
    """
    first = next(iter(tasks_of(cfg).values()))
    baselines = [baseline.name for baseline in _baselines(first)]
    trust = trusted_modules(cfg.trust)

    by_name: dict[str, list[Contender]] = {}
    for name, path, metadata in _thetas(cfg):
        label = _apart(name, baselines)
        contender = theta_contender(label, path, metadata, trust)
        by_name.setdefault(label, []).append(contender)

    learned: list[Contender] = []
    for contenders in by_name.values():
        learned += contenders if len(contenders) == 1 else meta_trainings(contenders)
    return learned


def _apart(name: str, baselines: list[str]) -> str:
    return f"{name}-learned" if name in baselines else name


def _thetas(cfg: DictConfig) -> list[tuple[str, Path, Metadata]]:
    """Name, file and metadata; without a name, each is called by its kind of optimizer."""
    thetas = []
    for name, source in trained_theta.named(cfg):
        path, metadata = find_theta(source)
        thetas.append((name or metadata["optimizer_name"], path, metadata))

    return thetas


def _baselines(cfg: DictConfig) -> list[Contender]:
    """Those of the benchmark of one task that ``baselines`` names, and those that nobody tunes.

    Raises:
        ValueError: one is unknown.
    """
    nodes = cfg.benchmark.baselines
    wanted = cfg.get("baselines")
    names = list(nodes) if wanted is None else list(wanted)

    contenders = []
    for name in names:
        if name not in nodes:
            choices = ", ".join(nodes)
            raise ValueError(
                f"baselines must be among those of the benchmark, {choices}, got {name!r}."
            )

        contenders.append(_baseline(str(name), nodes[name], fixed=False))

    # these are no part of the benchmark, so that a choice of ``baselines`` leaves them in
    for name, node in (cfg.get("fixed") or {}).items():
        contenders.append(_baseline(str(name), node, fixed=True))

    return contenders


def _baseline(name: str, node: DictConfig, *, fixed: bool) -> Contender:
    config = recorded_values(node)
    constructor: Callable[..., MetaOptimizer] = instantiate(node)
    return Contender(name, constructor, {"config": config}, fixed=fixed)
