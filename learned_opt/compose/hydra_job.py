"""What Hydra knows of the job that this process runs, and of the config groups beside it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import configure_log, setup_globals
from hydra.types import RunMode
from omegaconf import DictConfig

from learned_opt.runtime import job_record

SEARCH_PATH = "hydra.searchpath="  # folders of configs beside that of --config-dir


def folder() -> Path:
    """The run folder of the job, as a path from the working directory."""
    return Path(os.path.relpath(HydraConfig.get().runtime.output_dir))


def overrides() -> list[str]:
    """The words of the command line that change the config, without those about Hydra itself."""
    return job_record.as_typed(HydraConfig.get().overrides.task)


def words_about_hydra() -> list[str]:
    """The other words, such as ``hydra.run.dir=runs/1``, and those that Hydra adds by itself."""
    return job_record.as_typed(HydraConfig.get().overrides.hydra)


def config_name() -> str:
    """The primary config of the verb, such as ``evaluate``."""
    return str(HydraConfig.get().job.config_name)


def sweep_folder() -> Path:
    """The folder of the sweep that the job is one of, as a path from the working directory."""
    return Path(os.path.relpath(HydraConfig.get().sweep.dir))


def config_words() -> list[str]:
    """The words of the command line that add folders of configs, for commands that are printed."""
    words = []
    for source in HydraConfig.get().runtime.config_sources:
        if source.provider == "command-line":
            words.append(f"--config-dir={source.path}")
    return words + [word for word in words_about_hydra() if word.startswith(SEARCH_PATH)]


def choice(group: str) -> str | None:
    """The file that was chosen from a config group; None where the config has no such group."""
    return HydraConfig.get().runtime.choices.get(group)


def groups() -> list[str]:
    """Names of the config groups from which something was chosen."""
    return list(HydraConfig.get().runtime.choices)


def is_in_sweep() -> bool:
    """Whether the job is one of a sweep; False before Hydra has started."""
    return HydraConfig.initialized() and HydraConfig.get().mode is RunMode.MULTIRUN


def settings() -> Any:
    """Everything that Hydra knows of the job, for ``join`` in another process."""
    return HydraConfig.instance().cfg


def join(settings: DictConfig) -> None:
    """Make this process a part of the job of another process, with its logging.

    Args:
        settings: what ``settings`` has returned there.
    """
    setup_globals()
    HydraConfig.instance().set_config(settings)
    configure_log(settings.hydra.job_logging)


def recompose(name: str, words: Sequence[str]) -> DictConfig:
    """Compose a primary config again, with other words of the command line.

    Args:
        name: of the primary config, such as ``bench``.
        words: such as ``+task=mlp``.
    """
    return hydra.compose(name, overrides=list(words))


def group_nodes(group: str) -> DictConfig:
    """Every file of a config group by its name, those of a user's ``--config-dir`` included.

    Interpolations are as the files have them: they are resolved where a node is put.

    Args:
        group: such as ``meta_optimizer``.
    """
    names = GlobalHydra.instance().config_loader().get_group_options(group)
    return hydra.compose(None, overrides=[f"+{group}@{name}={name}" for name in names])
