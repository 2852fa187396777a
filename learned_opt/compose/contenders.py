"""From a composed config to what an evaluation suite is made of."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.inner_problems import tasks_of
from learned_opt.compose.setting_configs import SettingConfig, setting_configs
from learned_opt.compose.theta_description import task_identity
from learned_opt.core.device import resolve_device
from learned_opt.deploy import hub
from learned_opt.deploy.weights import load_metadata, load_theta
from learned_opt.evaluation.cells import Contender, Setting
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.runtime.memory import keep_freed_memory
from learned_opt.symmetry.spec import PermutationSpec


def build_settings(cfg: DictConfig) -> Iterator[Setting]:
    """Every task at every horizon, then the points of its card, each built when its turn comes; data are loaded once.

    Raises:
        ValueError: a value is out of its range, data are missing, or a spec does not fit its network.
    """
    keep_freed_memory()
    tasks = {entry or own.task.name: own for entry, own in tasks_of(cfg).items()}
    loaded: dict[str, Any] = {}
    for config in list(setting_configs(tasks)):
        yield _setting(config, loaded)


def _setting(config: SettingConfig, loaded: dict[str, Any]) -> Setting:
    own, given = config.cfg, {}
    task = OmegaConf.to_container(own.task, resolve=True)
    assert isinstance(task, dict)
    data = task.pop("data", None)
    if data is not None:
        key = json.dumps(data, sort_keys=True)
        if key not in loaded:
            loaded[key] = instantiate(data)
        given["data"] = loaded[key]
    family = instantiate(task, _partial_=True)(**given)
    _, spec = symmetry_of(family)
    made_of = task_identity(own)
    if "augment" in own:  # nothing is trained here, so an augmentation is part of the question
        family, made_of = (
            instantiate(own.augment)(family),
            {**made_of, "augment": OmegaConf.to_container(own.augment)},
        )
    device = resolve_device(own.device)
    return Setting(
        config.task,
        family,
        spec,
        instantiate(own.benchmark),
        [*_baselines(own), *_fixed(own)],
        made_of,
        own.compile,
        device,
        own.precision,
        config.axis,
        config.point,
    )


def build_learned(cfg: DictConfig) -> list[Contender]:
    """The learned optimizers; one that is called as a baseline is, is told apart by ``-learned``.

    Raises:
        ValueError: a checkpoint is missing, damaged or of another architecture, or two have the same name.
    """
    first = next(iter(tasks_of(cfg).values()))
    taken = [baseline.name for baseline in (*_baselines(first), *_fixed(first))]
    learned = []
    for name, path, metadata in _checkpoints(cfg.checkpoints):
        label = f"{name}-learned" if name in taken else name
        if label in [contender.name for contender in learned]:
            raise ValueError(
                f"two checkpoints are called {name}; name them: checkpoints={{NAME: FILE, NAME: FILE}}."
            )
        identity = {
            "config": metadata["meta_optimizer"],
            "theta": hashlib.sha256(path.read_bytes()).hexdigest()[:16],
        }
        learned.append(Contender(label, _Trained(path, metadata), identity, metadata))
    return learned


def _checkpoints(given: Any) -> list[tuple[str, Path, dict[str, Any]]]:
    """Name, file and metadata; a list names each by its kind of optimizer."""
    if OmegaConf.is_list(given):
        found = [(None, hub.find(path)) for path in given]
    else:
        found = [(str(name), hub.find(path)) for name, path in given.items()]
    every = [(name, path, load_metadata(path)) for name, path in found]
    return [(name or metadata["optimizer_name"], path, metadata) for name, path, metadata in every]


class _Trained:
    """Constructor of a learned optimizer with its theta; refuses weight spaces that theta does not fit."""

    def __init__(self, path: Path, metadata: dict[str, Any]) -> None:
        self.path, self.config = path, OmegaConf.create(metadata["meta_optimizer"])
        home = PermutationSpec(**next(iter(metadata["specs"].values())))
        self(home)  # a damaged file is found before anything is run

    def __call__(self, spec: PermutationSpec) -> MetaOptimizer:
        optimizer = instantiate(self.config)(spec)
        load_theta(self.path, optimizer)
        return optimizer


def _baselines(cfg: DictConfig) -> list[Contender]:
    """Those of the benchmark of one task; ``baselines`` may name fewer.

    Raises:
        ValueError: one is unknown.
    """
    every = cfg.benchmark.baselines
    names = list(every) if cfg.baselines is None else list(cfg.baselines)
    for name in names:
        if name not in every:
            raise ValueError(
                f"baselines must be among those of the benchmark, {', '.join(every)}, got {name!r}."
            )
    return [_baseline(name, every[name]) for name in names]


def _fixed(cfg: DictConfig) -> list[Contender]:
    """Baselines that nobody tunes."""
    return [_baseline(name, node, fixed=True) for name, node in cfg.fixed.items()]


def _baseline(name: Any, node: Any, fixed: bool = False) -> Contender:
    config = OmegaConf.to_container(node, resolve=True)
    return Contender(str(name), instantiate(node), {"config": config}, fixed=fixed)
