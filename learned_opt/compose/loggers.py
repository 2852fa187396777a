"""The loggers of a composed config."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.inner_problems import Problem
from learned_opt.compose.resolve import tasks_of
from learned_opt.compose.theta_description import metadata
from learned_opt.core.errors import usage_errors
from learned_opt.training.wandb import start_runs


def build_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """The loggers of a config, which write into a run folder."""
    return [instantiate(node, save_dir=str(folder)) for node in cfg.logger.values()]


def log_config(loggers: list[Logger], cfg: DictConfig, problems: dict[str, Problem]) -> None:
    """Tell the loggers the config and what the run is made on.

    The config is that of every task where there are several.

    Raises:
        UsageError: W&B does not start.
    """
    with usage_errors():
        start_runs(loggers)

    settings = task_settings(problems)
    if "mix" not in cfg:
        (settings,) = settings.values()
    provenance = metadata(cfg, problems)["provenance"]
    for logger in loggers:
        logger.log_hyperparams({**settings, "provenance": provenance})


def log_evaluation_config(
    loggers: list[Logger], cfg: DictConfig, provenance: dict[str, str]
) -> None:
    """Tell the loggers the config of an evaluation and where it runs.

    Args:
        loggers: of the run.
        cfg: the composed config.
        provenance: command, versions and machine.

    Raises:
        UsageError: W&B does not start.
    """
    with usage_errors():
        start_runs(loggers)
    settings = {}
    for entry, task_cfg in tasks_of(cfg).items():
        settings[entry or task_cfg.task.name] = OmegaConf.to_container(task_cfg, resolve=True)
    if "mix" not in cfg:
        (settings,) = settings.values()
    for logger in loggers:
        logger.log_hyperparams({**settings, "provenance": provenance})


def task_settings(problems: dict[str, Problem]) -> dict[str, Any]:
    """The resolved config of every task, as plain values."""
    return {
        name: OmegaConf.to_container(problem.cfg, resolve=True)
        for name, problem in problems.items()
    }
