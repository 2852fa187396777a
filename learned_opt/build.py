"""From a composed config to objects; the only place that instantiates."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.core.hydra_config import HydraConfig
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt import tree
from learned_opt.cli import RunError, UsageError
from learned_opt.evaluation.compare import Benchmark
from learned_opt.memory import keep_freed_memory
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
from learned_opt.mixture import task_configs
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.provenance import provenance
from learned_opt.symmetry.check import check_function
from learned_opt.symmetry.infer import infer_from_function
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.tree import Tree
from tasks.base import TaskFamily


@dataclass(frozen=True)
class Problem:
    """A task and the meta-optimizer on its weight space."""

    cfg: DictConfig  # of this task alone
    optimizer: MetaOptimizer
    unroll: Unroll  # of what is trained on, augmented where the config says so
    heldout: Unroll  # of the task as it is: for validation and comparison
    benchmark: Benchmark
    num_params: int  # of the inner network
    optimizer_name: str

    @property
    def num_theta(self) -> int:
        """Number of meta-parameters."""
        return tree.num_elements(dict(self.optimizer.named_parameters()))


@contextmanager
def usage_errors() -> Iterator[None]:
    """What constructors refuse is bad input: one sentence, exit code 2."""
    try:
        yield
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        raise UsageError(str(error)) from error
    except TypeError as error:
        raise UsageError(f"a value has the wrong type or a key is unknown: {error}.") from error


def build_problems(cfg: DictConfig, meta_optimizer: DictConfig, optimizer_name: str) -> dict[str, Problem]:
    """Build the families of all tasks, one meta-optimizer for each spec over the same theta, and the inner loops.

    Args:
        cfg: the composed config, of one task or of a mix.
        meta_optimizer: the config node of the meta-optimizer: the composed one, or a checkpoint's.
        optimizer_name: its name in tables.

    Returns:
        dict[str, Problem]: by the name of the task.

    Raises:
        UsageError: a value is out of its range, data are missing, a spec does not fit its network, or theta cannot
            move between the weight spaces of a mix.
    """
    keep_freed_memory()
    problems: dict[str, Problem] = {}
    for entry, own in _task_configs(cfg).items():
        with usage_errors():
            device = resolve_device(own.device)
            family: TaskFamily = instantiate(own.task)
            name = entry or family.name
            params, spec = symmetry_of(family)
            if problems:
                optimizer = _rebound(problems, spec, name)
            else:
                torch.manual_seed(own.seed)
                optimizer = instantiate(meta_optimizer)(spec).to(device)
            heldout = unroll = Unroll(family, optimizer, own.compile, device, own.precision)
            if "augment" in own:
                unroll = Unroll(instantiate(own.augment)(family), optimizer, own.compile, device, own.precision)
            benchmark: Benchmark = instantiate(own.benchmark)
        size = tree.num_elements(params)
        problems[name] = Problem(own, optimizer, unroll, heldout, benchmark, size, optimizer_name)
    return problems


def _task_configs(cfg: DictConfig) -> dict[str | None, DictConfig]:
    if "mix" not in cfg:  # a replay has no Hydra
        return task_configs(cfg, [], [])
    composed = HydraConfig.get()
    return task_configs(cfg, composed.overrides.task, list(composed.runtime.choices))


def _rebound(problems: dict[str, Problem], spec: PermutationSpec, name: str) -> MetaOptimizer:
    first = next(iter(problems))
    try:
        return problems[first].optimizer.rebind(spec)
    except ValueError as error:
        kind = problems[first].optimizer_name
        raise ValueError(f"meta_optimizer {kind} cannot go from task {first} to task {name}: {error}") from error


def build_problem(cfg: DictConfig, meta_optimizer: DictConfig, optimizer_name: str) -> Problem:
    """``build_problems`` for what takes a single task.

    Raises:
        UsageError: the same, or there is a mix.
    """
    if "mix" in cfg:
        raise UsageError(f"this command takes one task, got a mix of {', '.join(cfg.mix)}.")
    (problem,) = build_problems(cfg, meta_optimizer, optimizer_name).values()
    return problem


def symmetry_of(family: TaskFamily) -> tuple[Tree, PermutationSpec]:
    """The family's permutation spec, its own or inferred from its loss, and the parameters on which it was proved.

    Raises:
        ValueError: the spec does not fit, or is no symmetry of the loss; names the parameter and axis.
    """
    source = torch.Generator().manual_seed(0)
    task = family.sample(source)
    params, batch = family.init(source, task), family.batch(source, task)
    params = tree.tree_map(lambda p: p + 0.1 * torch.randn(p.shape, generator=source), params)  # biases are 0 at first

    def loss(values: Tree) -> list[torch.Tensor]:
        return [family.loss(values, batch, task)]

    axes = family.permutation_axes()
    spec = infer_from_function(loss, params) if axes is None else PermutationSpec(*axes).measure(params)
    with torch.no_grad():
        report = check_function(loss, params, spec, source, num_draws=1, tolerance=1e-4)  # float32 losses
    if not report.passed:
        raise ValueError(f"the permutation spec of task {family.name!r} is wrong: {report.findings[0]}.")
    return params, spec


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
            for key, (name, own) in zip(_labels(problems), estimators.items(), strict=True)
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
        for label, problem in zip(_labels(problems), problems.values(), strict=True)
    ]


def _labels(problems: dict[str, Problem]) -> list[str]:
    """What tells the tasks of a run apart: their names; one alone needs none."""
    return list(problems) if len(problems) > 1 else [""]


def metadata(cfg: DictConfig, problems: dict[str, Problem]) -> dict[str, Any]:
    """What ``theta.json`` says beside the evaluation: how to rebuild the optimizer and where it comes from."""
    any_problem = next(iter(problems.values()))
    return {
        "optimizer_name": any_problem.optimizer_name,
        "meta_optimizer": OmegaConf.to_container(cfg.meta_optimizer, resolve=True),
        "specs": {name: problem.optimizer.spec.as_dict() for name, problem in problems.items()},
        "tasks": {name: problem.unroll.family.describe() for name, problem in problems.items()},
        "provenance": provenance(cfg.seed, any_problem.unroll.device) | {"num_tasks": _num_tasks(problems)},
    }


def _num_tasks(problems: dict[str, Problem]) -> str:
    """Numbers where the command may say auto."""
    return " ".join(
        f"{label} {p.cfg.estimator.num_tasks}".strip()
        for label, p in zip(_labels(problems), problems.values(), strict=True)
    )


def resolve_device(name: str) -> str:
    """``auto`` is the GPU when there is one.

    Raises:
        ValueError: an unknown name, or cuda where there is none.
    """
    if name not in ("auto", "cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {name!r}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise ValueError("device is cuda, but torch finds no CUDA device here.")
    return ("cuda" if torch.cuda.is_available() else "cpu") if name == "auto" else name
