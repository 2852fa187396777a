"""Meta-train, then evaluate on held-out seeds and report. ``python -m learned_opt +task=mlp``."""

import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from learned_opt import cli, replay


@hydra.main(version_base="1.3", config_path=cli.config_dir(), config_name="config")
@cli.one_line_errors
def run(cfg: DictConfig) -> float:
    """One run; returns the mean held-out loss, which a sweeper can minimise."""
    from rich.console import Console

    from learned_opt import build, screens, sizing, training
    from learned_opt.deploy.weights import save_theta

    folder, console = Path(os.path.relpath(HydraConfig.get().runtime.output_dir)), Console()
    choices = HydraConfig.get().runtime.choices
    problems = build.build_problems(cfg, cfg.meta_optimizer, choices["meta_optimizer"])
    memory = sizing.size(cfg, problems)
    OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")  # with the number that auto stands for
    fit = training.build_training(cfg, problems, folder)
    console.print(screens.first_screen(problems, choices["estimator"], fit.estimators, str(memory), folder))
    finished = fit.run()
    metadata = build.metadata(cfg, problems)
    save_theta(folder, fit.module.theta, metadata)
    if not finished:
        overrides = sizing.resolved(HydraConfig.get().overrides.task, memory.automatic)
        console.print(screens.interrupted(overrides, folder), soft_wrap=True, highlight=False)
        sys.exit(130)
    return screens.evaluate_and_report(problems, cfg.compile, metadata, folder, console)


def main() -> None:
    """Entry point of ``python -m learned_opt`` and of the ``learned-opt`` command."""
    if replay.requested(sys.argv[1:]):
        replay.main()
    else:
        cli.entry_point(run)


if __name__ == "__main__":
    main()
