"""Evaluate a trained theta. ``python -m learned_opt.evaluate +task=mlp checkpoint=runs/.../theta.safetensors``."""

import os
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from learned_opt import cli


@hydra.main(version_base="1.3", config_path=cli.config_dir(), config_name="evaluate")
@cli.one_line_errors
def run(cfg: DictConfig) -> float:
    """One evaluation; returns the mean held-out loss."""
    from rich.console import Console

    from learned_opt import build, screens, training
    from learned_opt.deploy.weights import load_metadata, load_theta
    from learned_opt.meta.publish import published

    checkpoint = Path(cfg.checkpoint)
    with build.usage_errors():
        metadata = load_metadata(checkpoint)
    meta_optimizer: Any = OmegaConf.create(metadata["meta_optimizer"])
    problems = build.build_problems(cfg, meta_optimizer, metadata["optimizer_name"])
    with build.usage_errors():
        for problem in problems.values():
            load_theta(checkpoint, problem.optimizer)
    # nothing is trained here, so an augmentation is part of the question
    problems = {name: replace(problem, heldout=problem.unroll) for name, problem in problems.items()}
    folder = Path(os.path.relpath(HydraConfig.get().runtime.output_dir))
    cfg.meta_optimizer, cfg.optimizer_name = meta_optimizer, metadata["optimizer_name"]
    origin = {"trained_by": metadata["provenance"], "trained_on": metadata["tasks"]}
    loggers = training.build_loggers(cfg, folder)
    training.log_config(loggers, cfg, problems)
    described, console = {**build.metadata(cfg, problems), **origin}, Console()
    with published(loggers, folder, partial(console.print, soft_wrap=True, highlight=False)):
        return screens.evaluate_and_report(problems, cfg.compile, described, folder, console)


def main() -> None:
    """Entry point of ``python -m learned_opt.evaluate``."""
    cli.entry_point(run)


if __name__ == "__main__":
    main()
