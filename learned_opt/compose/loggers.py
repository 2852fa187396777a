"""The loggers of a composed config."""

from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger
from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.inner_problems import Problem
from learned_opt.compose.theta_description import metadata
from learned_opt.core.errors import usage_errors
from learned_opt.training.wandb import start_runs


def build_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """The loggers of a config."""
    return [instantiate(node, save_dir=str(folder)) for node in cfg.logger.values()]


def log_config(loggers: list[Logger], cfg: DictConfig, problems: dict[str, Problem]) -> None:
    """Tell the loggers the config, that of every task where there are several, and what the run is made on.

    Raises:
        UsageError: W&B does not start.
    """
    with usage_errors():
        start_runs(loggers)
    settings = _settings(problems)
    settings = settings if "mix" in cfg else next(iter(settings.values()))
    for logger in loggers:
        logger.log_hyperparams(settings | {"provenance": metadata(cfg, problems)["provenance"]})


def _settings(problems: dict[str, Problem]) -> dict[str, Any]:
    return {
        name: OmegaConf.to_container(problem.cfg, resolve=True)
        for name, problem in problems.items()
    }
