"""Bias, variance and cost of the gradient estimators, ``lab +task=mlp``."""

from typing import Any

import hydra
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files, trained_theta
from learned_opt.core.errors import UsageError


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="lab")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure every case at a theta: a trained one, that of a checkpoint, or the initial one."""
    from rich.console import Console

    from learned_opt.compose import config_tree, hydra_job, resolve
    from learned_opt.evaluation import estimator_lab
    from learned_opt.reporting import lab_report

    trained_theta.refuse(cfg, "checkpoint")
    cfg = resolve.final(cfg)
    config_tree.print_if_asked(cfg, Console())
    if cfg.replicates < 2:
        raise UsageError(f"replicates must be at least 2, got {cfg.replicates}.")
    if cfg.budget < 1:
        raise UsageError(f"budget must be at least 1, got {cfg.budget}.")

    estimators, theta = _build(cfg)
    console = Console()
    estimates = {}
    for name, estimator in estimators.items():
        console.print(f"{cfg.replicates} estimates of {name}", highlight=False)
        estimates[name] = estimator_lab.collect(
            estimator, theta, cfg.horizon, cfg.replicates, cfg.seed
        )

    folder = hydra_job.folder()
    reference = type(estimators["reference"]).__name__
    tables, notes = lab_report.write_report(folder, estimates, reference, theta, cfg.budget)
    for table in tables:
        console.print(table)
    console.print(f"{notes}\nwritten to {folder}: lab.md, lab.json, lab.png", highlight=False)


def _build(cfg: DictConfig) -> tuple[dict[str, Any], dict[str, Any]]:
    """The reference and the cases by name, and the theta at which they are measured."""
    from learned_opt.compose import inner_problems, meta_training
    from learned_opt.core.errors import usage_errors
    from learned_opt.training.checkpoint_theta import load_theta_or_checkpoint

    problem = inner_problems.build_problem(cfg, cfg.meta_optimizer, cfg.optimizer_name)
    estimators = {}
    with usage_errors():
        if theta := trained_theta.single(cfg):
            load_theta_or_checkpoint(theta, problem.optimizer)
        for name, node in {"reference": cfg.reference, **cfg.cases}.items():
            estimators[name] = meta_training.build_estimator(cfg, node, problem.unroll)
    measured = {name: p.detach() for name, p in problem.optimizer.named_parameters()}
    return estimators, measured


def main() -> None:
    """Entry point of the verb."""
    cli.entry_point(run)
