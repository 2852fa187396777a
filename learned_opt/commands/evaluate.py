"""Evaluate trained thetas. ``python -m learned_opt evaluate +task=mlp checkpoint=runs/.../theta.safetensors``.

With ``checkpoints={NAME: FILE}`` in place of ``checkpoint`` it is the suite: optimizers x tasks x horizons x seeds,
with a generalisation card where one is asked for. ``python -m learned_opt evaluate table FOLDER... [rows=NAME,NAME]``
prints the table of finished evaluations; where rows are named, the best of all others is one more.
"""

import os
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files
from learned_opt.core import errors


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="evaluate")
@cli.one_line_errors
def run(cfg: DictConfig) -> float | None:
    """One evaluation; that of a single checkpoint returns the mean held-out loss."""
    from rich.console import Console

    folder, console = Path(os.path.relpath(HydraConfig.get().runtime.output_dir)), Console()
    if cfg.theta is not None:
        raise errors.UsageError(
            f"theta is what a training starts from; to evaluate it give checkpoint={cfg.theta}."
        )
    if (cfg.checkpoint is None) == (not cfg.checkpoints):
        raise errors.UsageError(
            "give checkpoint=FILE, or checkpoints={NAME: FILE, NAME: FILE} for a suite."
        )
    if cfg.checkpoint is not None:
        return _page(cfg, folder, console)
    from learned_opt.commands import suite

    return suite.evaluate_suite(cfg, folder, console)


def _page(cfg: DictConfig, folder: Path, console: Any) -> float:
    from learned_opt.compose import loggers, theta_description, trained_optimizer
    from learned_opt.reporting import screens
    from learned_opt.reporting.wandb_upload import published

    problems, metadata = trained_optimizer.build_trained(cfg, cfg.checkpoint)
    # nothing is trained here, so an augmentation is part of the question
    problems = {
        name: replace(problem, heldout=problem.unroll) for name, problem in problems.items()
    }
    origin = {"trained_by": metadata["provenance"], "trained_on": metadata["tasks"]}
    made = loggers.build_loggers(cfg, folder)
    loggers.log_config(made, cfg, problems)
    described = {**theta_description.metadata(cfg, problems), **origin}
    with published(made, folder, partial(console.print, soft_wrap=True, highlight=False)):
        return screens.evaluate_and_report(problems, cfg.compile, described, folder, console)


def main() -> None:
    """Entry point of ``python -m learned_opt evaluate``; ``table`` as the first word needs no config."""
    if sys.argv[1:2] == ["table"]:
        cli.entry_point(_table, needs_task=False)
    else:
        cli.entry_point(run)


def _table() -> None:
    from learned_opt.reporting import results_table

    named = [
        word.removeprefix("rows=").split(",") for word in sys.argv[2:] if word.startswith("rows=")
    ]
    folders = [Path(word) for word in sys.argv[2:] if not word.startswith("rows=")]
    try:
        print(results_table.table(folders, *named[-1:]))
    except ValueError as error:
        raise errors.UsageError(str(error)) from error


if __name__ == "__main__":
    main()
