"""Meta-train, then evaluate on held-out seeds and report. ``python -m learned_opt +task=mlp``."""

import csv
import math
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from learned_opt.commands import cli, replay
from learned_opt.compose import config_files
from learned_opt.core import errors
from learned_opt.runtime import job_record


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="config")
@cli.one_line_errors
def run(cfg: DictConfig) -> float | None:
    """One run, which goes on from the checkpoints that its folder may hold.

    Returns:
        float | None: the last validation loss, which a sweeper may minimise, as held-out seeds are not for tuning;
        None on ranks other than the first.
    """
    if (value := job_record.finished_value(Path(HydraConfig.get().runtime.output_dir))) is not None:
        return value
    from rich.console import Console

    from learned_opt.compose import (
        inner_problems,
        meta_training,
        sizing,
        theta_description,
        trained_optimizer,
    )
    from learned_opt.compose.run_facts import facts_of_run
    from learned_opt.deploy.weights import save_theta
    from learned_opt.reporting import screens
    from learned_opt.reporting.wandb_upload import published
    from learned_opt.runtime import ranks
    from learned_opt.runtime.run_folder import RunFolder
    from learned_opt.training.wandb import wandb_runs

    place = ranks.world(cfg)
    ranks.use_own_gpu(place)
    folder, console = (
        Path(os.path.relpath(HydraConfig.get().runtime.output_dir)),
        Console(quiet=not place.leads),
    )
    choices = HydraConfig.get().runtime.choices
    if cfg.theta is None:
        problems, before = (
            inner_problems.build_problems(cfg, cfg.meta_optimizer, choices["meta_optimizer"]),
            None,
        )
    else:
        _refuse_another_optimizer(HydraConfig.get().overrides.task)
        problems, origin = trained_optimizer.build_trained(cfg, cfg.theta)
        before = trained_optimizer.ancestry(cfg.theta, origin)
    start = meta_training.find_start(folder, cfg.ckpt)
    memory = sizing.size(cfg, problems, place, start.num_tasks)
    if place.leads:
        OmegaConf.save(
            cfg, folder / ".hydra" / "config.yaml"
        )  # with the number that auto stands for
    say = partial(console.print, soft_wrap=True, highlight=False)
    with ExitStack() as stack:
        with ranks.others(place, follow, cfg, HydraConfig.instance().cfg):
            fit = meta_training.build_training(cfg, problems, folder, start)
            stack.enter_context(published(wandb_runs(fit.trainer.loggers), folder, say))
            facts = facts_of_run(
                problems, choices["estimator"], fit.estimators, str(memory), folder
            )
            console.print(screens.facts_grid(facts))
            if start.ckpt or before:
                say(f"going on from {start.ckpt or cfg.theta}")
            try:
                stopped_by = fit.run()
            except errors.RunError:
                if place.leads:
                    raise
                sys.exit(1)  # the first rank says why
        if not place.leads:
            return None
        metadata = theta_description.metadata(cfg, problems)
        metadata["provenance"] |= fit.spent()
        if before:
            metadata["started_from"] = before
        save_theta(folder, fit.module.theta, metadata)
        if stopped_by:
            overrides = sizing.resolved(HydraConfig.get().overrides.task, memory.automatic)
            console.print(screens.interrupted(overrides, folder), soft_wrap=True, highlight=False)
            sys.exit(128 + stopped_by)
        compare(problems, metadata, RunFolder(folder), console)
        return _validation_loss(folder, inner_problems.labels(problems))


def compare(problems: Any, metadata: dict[str, Any], folder: Any, console: Any) -> None:
    """Compare the trained optimizer with tuned baselines on held-out seeds, and report.

    Args:
        problems: the tasks of the meta-training, from ``build_problems``.
        metadata: of ``theta.json``; written again, with what the comparison came to.
        folder: the run's ``RunFolder``.
        console: where to print.
    """
    from learned_opt.compose import contenders
    from learned_opt.deploy.parity import verdict
    from learned_opt.deploy.weights import save_theta
    from learned_opt.evaluation.suite import run_suite
    from learned_opt.reporting import screens

    optimizer = next(problem.optimizer for problem in problems.values())
    theta = dict(optimizer.named_parameters())
    contender = contenders.trained_contender(problems, metadata)
    settings = contenders.training_settings(problems)
    print_line = screens.plain_line(console)
    results = run_suite(settings, [contender], None, metadata["provenance"], print_line)

    described = {"evaluation": screens.evaluation_texts(results), "warnings": results.warnings}
    save_theta(folder.path, theta, {**metadata, **described})
    screens.show_results(results, folder, console)
    print_line(verdict(optimizer))


def _refuse_another_optimizer(overrides: Sequence[str]) -> None:
    if given := [
        word
        for word in overrides
        if word.split("=")[0].split(".")[0] in ("meta_optimizer", "learned")
    ]:
        raise errors.UsageError(
            f"theta brings its own meta-optimizer, so that {given[0]} has no effect; leave it out."
        )


def _validation_loss(folder: Path, labels: list[str]) -> float:
    """Mean over the tasks of the last row of ``metrics.csv`` that has it; infinite where it is not finite."""
    with (folder / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    columns = [f"meta_loss/valid/{label}" if label else "meta_loss/valid" for label in labels]
    last = [float([row[column] for row in rows if row[column]][-1]) for column in columns]
    return sum(last) / len(last) if all(map(math.isfinite, last)) else math.inf


def follow(cfg: DictConfig, hydra_config: DictConfig) -> None:
    """The run in another rank, which the first one has started with its own config."""
    from hydra.core.utils import configure_log, setup_globals

    setup_globals()
    HydraConfig.instance().set_config(hydra_config)
    configure_log(hydra_config.hydra.job_logging)
    run(cfg)


def main() -> None:
    """Entry point of ``python -m learned_opt`` and of the ``learned-opt`` command."""
    if replay.requested(sys.argv[1:]):
        replay.main()
    else:
        cli.entry_point(run)


if __name__ == "__main__":
    main()
