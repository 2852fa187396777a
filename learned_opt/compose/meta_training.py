"""From a composed config and its problems to a meta-training."""

from dataclasses import dataclass
from pathlib import Path

from hydra.utils import instantiate
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from omegaconf import DictConfig

from learned_opt.compose.inner_problems import Problem, labels
from learned_opt.compose.loggers import _settings, build_loggers, log_config
from learned_opt.core.errors import RunError, UsageError, usage_errors
from learned_opt.estimators.chain_estimator import ChainEstimator
from learned_opt.estimators.mixed import MixedEstimator
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.estimators.single_process import as_shared
from learned_opt.inner.unroll import Unroll
from learned_opt.runtime.ranks import World, by_srun
from learned_opt.training.callbacks.agreement import Agreement
from learned_opt.training.callbacks.checkpoints import Checkpoints
from learned_opt.training.callbacks.diagnostics import Diagnostics
from learned_opt.training.callbacks.divergence import StopWhenNothingIsFinite
from learned_opt.training.callbacks.gauges import Gauges
from learned_opt.training.callbacks.progress import ProgressBar
from learned_opt.training.callbacks.signal_to_noise import SignalToNoise
from learned_opt.training.callbacks.signals import Signals
from learned_opt.training.callbacks.throughput import Throughput
from learned_opt.training.callbacks.validation import Validation
from learned_opt.training.checkpoint_io import WholeFiles
from learned_opt.training.checkpoints import (
    CheckpointError,
    check_fits,
    find_checkpoint,
    newest,
    num_tasks,
)
from learned_opt.training.meta_training import Training
from learned_opt.training.replay import Recorder
from learned_opt.training.trainer import MetaTrainer, quiet_lightning


def build_estimator(cfg: DictConfig, estimator: DictConfig, unroll: Unroll) -> SharedEstimator:
    """A meta-gradient estimator on the truncation of a config.

    Raises:
        UsageError: its number of tasks is still to be worked out, which meta-training does before.
    """
    if estimator.num_tasks == "auto":
        raise UsageError("this command takes a number for estimator.num_tasks, got 'auto'.")
    truncation = instantiate(cfg.truncation)
    return as_shared(instantiate(estimator)(unroll=unroll, truncation=truncation))


def _mixed(
    estimators: dict[str, SharedEstimator], problems: dict[str, Problem]
) -> SharedEstimator:
    """The estimator of a run; that of a single task is itself."""
    if len(estimators) == 1:
        return next(iter(estimators.values()))
    return MixedEstimator(
        estimators, {name: problem.cfg.weight for name, problem in problems.items()}
    )


@dataclass(frozen=True)
class Start:
    """What a training goes on from.

    Args:
        ckpt: a checkpoint, None to start anew.
        num_tasks: of its chains, by task; empty where there is none.
    """

    ckpt: Path | None
    num_tasks: dict[str, int]


def find_start(folder: Path, ckpt: str | None) -> Start:
    """The newest whole checkpoint of a run folder, or else the one that ``ckpt`` names.

    Raises:
        UsageError: ``ckpt`` is no checkpoint.
        RunError: every checkpoint of a folder is damaged.
    """
    try:
        with usage_errors():
            file = newest(folder / "checkpoints") or (find_checkpoint(Path(ckpt)) if ckpt else None)
            return Start(file, num_tasks(file) if file else {})
    except CheckpointError as error:
        raise RunError(str(error)) from error


def build_training(
    cfg: DictConfig, problems: dict[str, Problem], folder: Path, start: Start, place: World
) -> Training:
    """Build estimator, module, callbacks, loggers and the Lightning trainer.

    Args:
        cfg: the composed config.
        problems: from ``build_problems``.
        folder: run folder.
        start: from ``find_start``.
        place: which rank this is.

    Raises:
        UsageError: a value is out of its range, or the checkpoint does not fit.
    """
    quiet_lightning()
    optimizer, device = next(
        (problem.optimizer, problem.unroll.device) for problem in problems.values()
    )
    with usage_errors():
        estimators = {
            name: build_estimator(p.cfg, p.cfg.estimator, p.unroll) for name, p in problems.items()
        }
        estimator = _mixed(estimators, problems)
        outer = instantiate(cfg.outer_optimizer)
        settings = _settings(problems)
        recorders = {
            key: Recorder(folder / "replay" / key, own, settings[name], cfg.callbacks.max_replays)
            for key, (name, own) in zip(labels(problems), estimators.items(), strict=True)
            if isinstance(own, ChainEstimator)  # others cannot be replayed
        }
        module = MetaTrainer(
            optimizer,
            estimator,
            outer.optimizer,
            outer.schedule,
            cfg.seed,
            cfg.trainer.max_steps,
            recorders,
        )
        signals, diverged = Signals(), StopWhenNothingIsFinite(cfg.callbacks.stop_after_nonfinite)
        throughput = Throughput(estimator.num_inner_steps)
        every, keep = cfg.callbacks.checkpoint_every, cfg.callbacks.keep_checkpoints
        callbacks = [
            Checkpoints(folder / "checkpoints", every, keep, signals),
            throughput,  # starts after the checkpoint is written and stops before the others
            Gauges(),
            SignalToNoise(cfg.callbacks.signal_decay),
            *(
                [*_validations(problems), _diagnostics(cfg, problems, folder)]
                if place.leads
                else []
            ),
            diverged,
            Agreement(cfg.callbacks.compare_ranks_every),
            signals,
            *([ProgressBar()] if place.leads else []),
        ]
        loggers = build_loggers(cfg, folder)
        trainer = instantiate(
            cfg.trainer,
            accelerator=device.type.replace("cuda", "gpu"),
            callbacks=callbacks,
            logger=loggers,
            plugins=[
                WholeFiles(),
                SLURMEnvironment(auto_requeue=False) if by_srun() else LightningEnvironment(),
            ],
        )
        if start.ckpt:
            check_fits(start.ckpt, optimizer, estimator)
    log_config(loggers, cfg, problems)
    return Training(module, trainer, estimators, signals, diverged, throughput, start.ckpt)


def _diagnostics(cfg: DictConfig, problems: dict[str, Problem], folder: Path) -> Diagnostics:
    own = cfg.callbacks
    unrolls = {task: (problem.heldout, problem.cfg.horizon) for task, problem in problems.items()}
    return Diagnostics(
        folder, unrolls, own.diagnose_every, own.diagnose_chains, own.diagnose_points
    )


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
