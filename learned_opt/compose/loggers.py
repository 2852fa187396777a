"""The loggers of a composed config."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.loggers import Logger, WandbLogger
from omegaconf import DictConfig

from learned_opt.compose.inner_problems import Problem
from learned_opt.compose.overlay import lay_over
from learned_opt.compose.recorded_values import recorded_values
from learned_opt.compose.resolve import tasks_of, with_meta_optimizer
from learned_opt.compose.theta_description import metadata
from learned_opt.core.errors import usage_errors
from learned_opt.evaluation.setting import Contender
from learned_opt.reporting import heldout_metrics, wandb_upload
from learned_opt.training import mlflow, wandb
from learned_opt.training.metrics_file import MetricsFile


def build_loggers(cfg: DictConfig, folder: Path) -> list[Logger]:
    """The loggers of a config, which write into a run folder."""
    return [instantiate(node, save_dir=str(folder)) for node in cfg.logger.values()]


@contextmanager
def completed(
    loggers: Sequence[Logger], folder: Path, print_line: Callable[[str], None]
) -> Iterator[None]:
    """At the end, an early one too, give the loggers what the run folder holds, and end them.

    Args:
        loggers: of the run.
        folder: of the run.
        print_line: called with where W&B shows the run, or how to upload it.
    """
    # metrics.csv is of meta-training alone, and W&B has a summary and tables
    others = [item for item in loggers if not isinstance(item, MetricsFile | WandbLogger)]
    with (
        wandb_upload.published(wandb.wandb_runs(loggers), folder, print_line),
        heldout_metrics.logged_at_end(others, folder),
    ):
        yield


def log_config(loggers: list[Logger], cfg: DictConfig, problems: dict[str, Problem]) -> None:
    """Tell the loggers the config and what the run is made on.

    The config is that of every task where there are several.

    Raises:
        UsageError: W&B or MLflow does not start.
    """
    _start(loggers)

    settings = task_settings(problems)
    if "mix" not in cfg:
        (settings,) = settings.values()

    # the same record that ``theta.json`` keeps
    provenance = metadata(cfg, problems)["provenance"]
    for logger in loggers:
        logger.log_hyperparams({**settings, "provenance": provenance})


def named_after(cfg: DictConfig, learned: Sequence[Contender]) -> DictConfig:
    """The config of an evaluation under the names of the optimizers that it evaluates.

    Loggers file runs by ``optimizer_name``, which the composed config has from its own default.

    Args:
        cfg: the composed config.
        learned: from ``build_learned``.
    """
    trained = [contender.trained for contender in learned if contender.trained]
    name = "+".join(metadata["optimizer_name"] for metadata in trained)
    if len(trained) == 1:
        return with_meta_optimizer(cfg, trained[0]["meta_optimizer"], name)
    return lay_over(cfg, {"optimizer_name": name})


def log_evaluation_config(
    loggers: list[Logger], cfg: DictConfig, provenance: dict[str, str]
) -> None:
    """Tell the loggers the config of an evaluation and where it runs.

    Args:
        loggers: of the run.
        cfg: the composed config.
        provenance: command, versions and machine.

    Raises:
        UsageError: W&B or MLflow does not start.
    """
    _start(loggers)

    settings = {}
    for entry, task_cfg in tasks_of(cfg).items():
        settings[entry or task_cfg.task.name] = recorded_values(task_cfg)

    if "mix" not in cfg:
        (settings,) = settings.values()

    for logger in loggers:
        logger.log_hyperparams({**settings, "provenance": provenance})


def _start(loggers: list[Logger]) -> None:
    with usage_errors():
        wandb.start_runs(loggers)
        mlflow.start_runs(loggers)


def task_settings(problems: dict[str, Problem]) -> dict[str, Any]:
    """The config of every task, as loggers and recipes get it."""
    settings = {}
    for name, problem in problems.items():
        settings[name] = recorded_values(problem.cfg)
    return settings
