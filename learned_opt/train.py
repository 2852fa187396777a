"""Meta-train, then evaluate on held-out seeds and report. ``python -m learned_opt +task=mlp``."""

import os
import sys
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from learned_opt import cli, replay


@hydra.main(version_base="1.3", config_path=cli.config_dir(), config_name="config")
@cli.one_line_errors
def run(cfg: DictConfig) -> float | None:
    """One run, which goes on from the checkpoints that its folder may hold.

    Returns:
        float | None: the mean held-out loss, which a sweeper can minimise; None on ranks other than the first.
    """
    from rich.console import Console

    from learned_opt import build, ranks, screens, sizing, training
    from learned_opt.deploy.weights import save_theta
    from learned_opt.meta.publish import published

    place = ranks.world(cfg)
    ranks.use_own_gpu(place)
    folder, console = Path(os.path.relpath(HydraConfig.get().runtime.output_dir)), Console(quiet=not place.leads)
    choices = HydraConfig.get().runtime.choices
    problems = build.build_problems(cfg, cfg.meta_optimizer, choices["meta_optimizer"])
    start = training.find_start(folder, cfg.ckpt)
    memory = sizing.size(cfg, problems, place, start.num_tasks)
    if place.leads:
        OmegaConf.save(cfg, folder / ".hydra" / "config.yaml")  # with the number that auto stands for
    say = partial(console.print, soft_wrap=True, highlight=False)
    with ExitStack() as stack:
        with ranks.others(place, follow, cfg, HydraConfig.instance().cfg):
            fit = training.build_training(cfg, problems, folder, start, place)
            stack.enter_context(published(fit.trainer.loggers, folder, say))
            console.print(screens.first_screen(problems, choices["estimator"], fit.estimators, str(memory), folder))
            if start.ckpt:
                say(f"going on from {start.ckpt}")
            try:
                stopped_by = fit.run()
            except cli.RunError:
                if place.leads:
                    raise
                sys.exit(1)  # the first rank says why
        if not place.leads:
            return None
        metadata = build.metadata(cfg, problems)
        save_theta(folder, fit.module.theta, metadata)
        if stopped_by:
            overrides = sizing.resolved(HydraConfig.get().overrides.task, memory.automatic)
            console.print(screens.interrupted(overrides, folder), soft_wrap=True, highlight=False)
            sys.exit(128 + stopped_by)
        return screens.evaluate_and_report(problems, cfg.compile, metadata, folder, console)


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
