"""Bias, variance and cost of the gradient estimators. ``python -m learned_opt lab +task=mlp``."""

import os
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from learned_opt.commands import cli
from learned_opt.compose import config_files


@hydra.main(version_base="1.3", config_path=config_files.config_dir(), config_name="lab")
@cli.one_line_errors
def run(cfg: DictConfig) -> None:
    """Measure every case at the theta of a checkpoint, or at the initial one."""
    from rich.console import Console

    from learned_opt.compose import inner_problems, meta_training
    from learned_opt.core import errors
    from learned_opt.deploy.weights import load_theta
    from learned_opt.evaluation import estimator_lab
    from learned_opt.reporting import lab_report, tables

    console, folder = Console(), Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    if cfg.replicates < 2:
        errors.fail(f"replicates must be at least 2, got {cfg.replicates}.")
    problem = inner_problems.build_problem(
        cfg, cfg.meta_optimizer, HydraConfig.get().runtime.choices["meta_optimizer"]
    )
    with errors.usage_errors():
        if cfg.checkpoint:
            load_theta(Path(cfg.checkpoint), problem.optimizer)
        nodes = {"reference": cfg.reference, **cfg.cases}
        estimators = {
            name: meta_training.build_estimator(cfg, node, problem.unroll)
            for name, node in nodes.items()
        }
    theta = {name: p.detach() for name, p in problem.optimizer.named_parameters()}
    estimates = {}
    for name, estimator in estimators.items():
        console.print(f"{cfg.replicates} estimates of {name}", highlight=False)
        estimates[name] = estimator_lab.collect(
            estimator, theta, cfg.horizon, cfg.replicates, cfg.seed
        )
    shown, notes = lab_report.write_report(
        folder, estimates, type(estimators["reference"]).__name__
    )
    console.print(tables.plain_table(estimator_lab.HEADINGS, shown))
    console.print(f"{notes}\nwritten to {folder}: lab.md, lab.json, lab.png", highlight=False)


def main() -> None:
    """Entry point of ``python -m learned_opt lab``."""
    cli.entry_point(run)


if __name__ == "__main__":
    main()
