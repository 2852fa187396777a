"""From a composed config and its problems to a meta-training."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt.build import Problem, labels, usage_errors
from learned_opt.cli import RunError
from learned_opt.meta.callbacks import (
    LastCheckpoint,
    ProgressBar,
    StopOnInterrupt,
    StopWhenNothingIsFinite,
    Throughput,
    Validation,
)
from learned_opt.meta.estimators.base import GradientEstimator
from learned_opt.meta.estimators.mixed import MixedEstimator
from learned_opt.meta.replay import Recorder
from learned_opt.meta.trainer import MetaTrainer, load_checkpoint, quiet_lightning
from learned_opt.meta.unroll import Unroll


def build_estimator(cfg: DictConfig, estimator: DictConfig, unroll: Unroll) -> GradientEstimator:
    """A meta-gradient estimator on the truncation of a config."""
    return instantiate(estimator)(unroll=unroll, truncation=instantiate(cfg.truncation))


def _mixed(estimators: dict[str, GradientEstimator], problems: dict[str, Problem]) -> GradientEstimator:
    """The estimator of a run; that of a single task is itself."""
    if len(estimators) == 1:
        return next(iter(estimators.values()))
    return MixedEstimator(estimators, {name: problem.cfg.weight for name, problem in problems.items()})


@dataclass(frozen=True)
class Training:
    """Everything that meta-training needs; ``run`` does it."""

    module: MetaTrainer
    trainer: lightning.Trainer
    estimators: dict[str, GradientEstimator]  # by task
    stop: StopOnInterrupt
    diverged: StopWhenNothingIsFinite
    ckpt: Path | None

    def run(self) -> bool:
        """Meta-train; False when it was stopped by Ctrl-C.

        Raises:
            RunError: no task stayed finite for too long.
        """
        self.trainer.fit(self.module, ckpt_path=self.ckpt, weights_only=True)
        if self.diverged.stopped:
            raise RunError(
                f"no task stayed finite for {self.diverged.patience} outer steps in a row, up to step "
                f"{self.trainer.global_step}; lower the outer learning rate (outer_optimizer.optimizer.lr), "
                "estimator.sigma or learned.alpha."
            )
        return not self.stop.interrupted


def build_training(cfg: DictConfig, problems: dict[str, Problem], folder: Path) -> Training:
    """Build estimator, module, callbacks, loggers and the Lightning trainer.

    Args:
        cfg: the composed config.
        problems: from ``build_problems``.
        folder: run folder.

    Raises:
        UsageError: a value is out of its range, or ``ckpt`` does not fit.
    """
    quiet_lightning()
    optimizer, device = next((problem.optimizer, problem.unroll.device) for problem in problems.values())
    with usage_errors():
        estimators = {name: build_estimator(p.cfg, p.cfg.estimator, p.unroll) for name, p in problems.items()}
        estimator = _mixed(estimators, problems)
        outer = instantiate(cfg.outer_optimizer)
        settings: dict[str, Any] = {n: OmegaConf.to_container(p.cfg, resolve=True) for n, p in problems.items()}
        recorders = {
            key: Recorder(folder / "replay" / key, own, settings[name], cfg.callbacks.max_replays)
            for key, (name, own) in zip(labels(problems), estimators.items(), strict=True)
        }
        module = MetaTrainer(
            optimizer, estimator, outer.optimizer, outer.schedule, cfg.seed, cfg.trainer.max_steps, recorders
        )
        stop, diverged = StopOnInterrupt(), StopWhenNothingIsFinite(cfg.callbacks.stop_after_nonfinite)
        callbacks = [
            Throughput(estimator.num_inner_steps),  # first, so that it times none of the others
            *_validations(problems),
            LastCheckpoint(folder / "checkpoints" / "last.ckpt", cfg.callbacks.checkpoint_every),
            stop,
            diverged,
            ProgressBar(),
        ]
        loggers = [instantiate(node, save_dir=str(folder)) for node in cfg.logger.values()]
        trainer = instantiate(
            cfg.trainer, accelerator=device.type.replace("cuda", "gpu"), callbacks=callbacks, logger=loggers
        )
        for logger in loggers:
            logger.log_hyperparams(settings if "mix" in cfg else next(iter(settings.values())))
        ckpt = load_checkpoint(cfg.ckpt, optimizer, estimator) if cfg.ckpt else None
    return Training(module, trainer, estimators, stop, diverged, ckpt)


def _validations(problems: dict[str, Problem]) -> list[Validation]:
    """One for each task; the figures of a mix end with the task's name."""
    return [
        Validation(
            problem.heldout,
            problem.cfg.horizon,
            problem.benchmark.num_chains,
            problem.cfg.callbacks.validate_every,
            f"/{label}" if label else "",
        )
        for label, problem in zip(labels(problems), problems.values(), strict=True)
    ]
