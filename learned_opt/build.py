"""From a composed config to objects; the only place that instantiates."""

import platform
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt import tree
from learned_opt.cli import PACKAGE, RunError, UsageError
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
from learned_opt.meta.replay import Recorder
from learned_opt.meta.trainer import MetaTrainer, load_checkpoint, quiet_lightning
from learned_opt.meta.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.prediction.fit import Settings
from learned_opt.prediction.populate import Recipe
from learned_opt.symmetry.check import check_function
from learned_opt.symmetry.infer import infer_from_function
from learned_opt.symmetry.spec import PermutationSpec
from learned_opt.tree import Tree
from tasks.base import TaskFamily


@dataclass(frozen=True)
class Problem:
    """A task and the meta-optimizer that is built for it."""

    family: TaskFamily
    optimizer: MetaOptimizer
    unroll: Unroll
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


def build_problem(cfg: DictConfig, meta_optimizer: DictConfig, optimizer_name: str) -> Problem:
    """Build the task family, the meta-optimizer on its spec, and the inner loop.

    Args:
        cfg: the composed config.
        meta_optimizer: the config node of the meta-optimizer: the composed one, or a checkpoint's.
        optimizer_name: its name in tables.

    Raises:
        UsageError: a value is out of its range, data are missing, or the spec does not fit the network.
    """
    keep_freed_memory()
    with usage_errors():
        device = resolve_device(cfg.device)
        family: TaskFamily = instantiate(cfg.task)
        params, spec = symmetry_of(family)
        torch.manual_seed(cfg.seed)
        optimizer: MetaOptimizer = instantiate(meta_optimizer)(spec).to(device)
        unroll = Unroll(family, optimizer, cfg.compile, device, cfg.precision)
        benchmark: Benchmark = instantiate(cfg.benchmark)
    return Problem(family, optimizer, unroll, benchmark, tree.num_elements(params), optimizer_name)


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


def build_zoo(cfg: DictConfig) -> tuple[Recipe, Callable[[int], Unroll], dict[str, Any]]:
    """What a zoo is made of.

    Returns:
        tuple: the recipe, the inner loop for each batch size, and the settings that ``zoo.json`` holds.

    Raises:
        ValueError: a value is out of its range.
    """
    keep_freed_memory()
    device, recipe = resolve_device(cfg.device), instantiate(cfg.recipe)
    family: TaskFamily = instantiate(cfg.task)
    _, spec = symmetry_of(family)
    optimizer = instantiate(cfg.optimizer)

    @cache
    def unroll_of(batch_size: int) -> Unroll:
        own = instantiate(cfg.task, batch_size=batch_size)
        return Unroll(own, optimizer(spec).to(device), cfg.compile, device)

    task = {key: value for key, value in family.describe().items() if key != "batch_size"}
    return recipe, unroll_of, {"task": task, "recipe": asdict(recipe), "spec": spec.as_dict()}


def build_predictors(cfg: DictConfig) -> tuple[dict[str, Callable[[PermutationSpec], torch.nn.Module]], Settings]:
    """Constructors of the predictors by name, and how they are trained."""
    keep_freed_memory()
    return dict(instantiate(cfg.predictors)), instantiate(cfg.fit)


def build_estimator(cfg: DictConfig, estimator: DictConfig, unroll: Unroll) -> GradientEstimator:
    """A meta-gradient estimator on the truncation of a config."""
    return instantiate(estimator)(unroll=unroll, truncation=instantiate(cfg.truncation))


@dataclass(frozen=True)
class Training:
    """Everything that meta-training needs; ``run`` does it."""

    module: MetaTrainer
    trainer: lightning.Trainer
    estimator: GradientEstimator
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


def build_training(cfg: DictConfig, problem: Problem, folder: Path) -> Training:
    """Build estimator, module, callbacks, loggers and the Lightning trainer.

    Args:
        cfg: the composed config.
        problem: from ``build_problem``.
        folder: run folder.

    Raises:
        UsageError: a value is out of its range, or ``ckpt`` does not fit.
    """
    quiet_lightning()
    unroll, chains = problem.unroll, problem.benchmark.num_chains
    with usage_errors():
        estimator = build_estimator(cfg, cfg.estimator, unroll)
        outer = instantiate(cfg.outer_optimizer)
        plain: Any = OmegaConf.to_container(cfg, resolve=True)
        recorder = Recorder(folder / "replay", estimator, plain, cfg.callbacks.max_replays)
        module = MetaTrainer(
            problem.optimizer, estimator, outer.optimizer, outer.schedule, cfg.seed, cfg.trainer.max_steps, recorder
        )
        stop, diverged = StopOnInterrupt(), StopWhenNothingIsFinite(cfg.callbacks.stop_after_nonfinite)
        callbacks = [
            Throughput(estimator.num_inner_steps),  # first, so that it times none of the others
            Validation(unroll, cfg.horizon, chains, cfg.callbacks.validate_every),
            LastCheckpoint(folder / "checkpoints" / "last.ckpt", cfg.callbacks.checkpoint_every),
            stop,
            diverged,
            ProgressBar(),
        ]
        loggers = [instantiate(node, save_dir=str(folder)) for node in cfg.logger.values()]
        trainer = instantiate(
            cfg.trainer, accelerator=unroll.device.type.replace("cuda", "gpu"), callbacks=callbacks, logger=loggers
        )
        for logger in loggers:
            logger.log_hyperparams(plain)
        ckpt = load_checkpoint(cfg.ckpt, problem.optimizer) if cfg.ckpt else None
    return Training(module, trainer, estimator, stop, diverged, ckpt)


def metadata(cfg: DictConfig, problem: Problem) -> dict[str, Any]:
    """What ``theta.json`` says beside the evaluation: how to rebuild the optimizer and where it comes from."""
    return {
        "optimizer_name": problem.optimizer_name,
        "meta_optimizer": OmegaConf.to_container(cfg.meta_optimizer, resolve=True),
        "spec": problem.optimizer.spec.as_dict(),
        "task": problem.family.describe(),
        "provenance": provenance(cfg, problem),
    }


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


def provenance(cfg: DictConfig, problem: Problem) -> dict[str, str]:
    """What a reader needs to run the same thing again."""
    return {
        "command": " ".join(["python -m", *command_words()]),
        "seed": str(cfg.seed),
        "git": git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "device": str(problem.unroll.device),
    }


def command_words() -> list[str]:
    """Module and arguments of this process, without the path of the machine."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    return [(module.name if module else Path(sys.argv[0]).name).removesuffix(".__main__"), *sys.argv[1:]]


def git_revision() -> str:
    """Commit of the checkout, marked when files differ from it; ``unknown`` outside of one."""
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
