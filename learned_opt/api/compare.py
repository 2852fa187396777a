"""Learned optimizers against each other and against tuned baselines, on held-out seeds."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch

from learned_opt.api import arguments
from learned_opt.api.comparison import Comparison
from learned_opt.api.contenders import Learned, learned_contender
from learned_opt.core.device import resolve_device
from learned_opt.deploy.foreign_classes import trusted_modules
from learned_opt.evaluation.benchmark import CRITERIA, Benchmark
from learned_opt.evaluation.progress import SILENT
from learned_opt.evaluation.results import Results
from learned_opt.evaluation.setting import Contender, Setting
from learned_opt.evaluation.suite import run_suite
from learned_opt.inner.bound_task import LoopSettings
from learned_opt.inner.task_spec import symmetry_of
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.optimizers.hand.references import make_adam, make_sgdm, make_torch
from learned_opt.reporting.run_progress import RunProgress
from learned_opt.runtime.memory import keep_freed_memory
from learned_opt.runtime.provenance import provenance
from learned_opt.training.quiet_lightning import quiet_for_a_while
from tasks.base import TaskFamily

Tasks = TaskFamily | Sequence[TaskFamily] | Mapping[str, TaskFamily]
MOST_CHAINS = 32  # runs that go side by side


@dataclass(frozen=True)
class Budget:
    """The arguments of ``compare`` about seeds and tuning, as it describes them."""

    seeds: int | range
    reference: str | None = None
    lowest_lr: float = 1e-3
    highest_lr: float = 100.0
    num_lrs: int = 26
    num_tuning_seeds: int = 3
    tuned_for: Sequence[str] = CRITERIA
    archive: str | Path | None = None

    def benchmarks(
        self, horizons: Mapping[str, int], baselines: Mapping[str, Callable[..., MetaOptimizer]]
    ) -> dict[str, Benchmark]:
        """The benchmark of each task.

        Raises:
            TypeError: a count is no whole number.
            ValueError: a value is out of its range.
        """
        seeds = heldout_seeds(self.seeds)
        reference = self.reference
        if reference is None:
            reference = next(iter(["adam"] if "adam" in baselines else baselines), "adam")
        arguments.check_count(2, num_lrs=self.num_lrs)
        arguments.check_count(1, num_tuning_seeds=self.num_tuning_seeds)

        benchmarks = {}
        for name, horizon in horizons.items():
            arguments.check_count(1, horizon=horizon)
            benchmarks[name] = Benchmark(
                horizon=horizon,
                num_seeds=len(seeds),
                first_seed=seeds.start,
                num_chains=min(len(seeds), MOST_CHAINS),
                baselines=baselines,
                lowest_lr=self.lowest_lr,
                highest_lr=self.highest_lr,
                num_lrs=self.num_lrs,
                num_tuning_seeds=self.num_tuning_seeds,
                archive=None if self.archive is None else str(self.archive),
                reference=reference,
                tuned_for=tuple(self.tuned_for),
            )
        return benchmarks


def compare(
    optimizers: Mapping[str, Learned],
    task: Tasks,
    horizon: int | Mapping[str, int] = 200,
    *,
    baselines: Mapping[str, Callable[..., MetaOptimizer]] | None = None,
    seeds: int | range = 32,
    reference: str | None = None,
    lowest_lr: float = Budget.lowest_lr,
    highest_lr: float = Budget.highest_lr,
    num_lrs: int = Budget.num_lrs,
    num_tuning_seeds: int = Budget.num_tuning_seeds,
    tuned_for: Sequence[str] = CRITERIA,
    archive: str | Path | None = None,
    trust: Sequence[str] = (),
    device: str = "auto",
    compile: bool = True,
    precision: str = "float32",
    progress: bool = True,
) -> Comparison:
    """Compare learned optimizers with each other and with baselines whose rate is tuned.

    All train the same inner networks from the same initial weights on the same batches, on
    held-out seeds that neither meta-training nor tuning uses; the numbers are those of the
    commands. Nothing is written, but tuning runs to ``archive``.

    Args:
        optimizers: name in tables -> a result of ``meta_train``; a folder, packaged name, file or
            hub id of a theta; a ``LearnedOptimizer``; a ``MetaOptimizer``; or a constructor of
            one, which is not trained.
        task: what inner networks train on; several in a list or under names.
        horizon: inner steps of every run; of each task where it is a mapping.
        baselines: name -> constructor ``(spec, lr=)``, or a class of ``torch.optim``, or
            ``functools.partial`` of one; None for SGD with momentum and Adam, ``{}`` for none.
        seeds: how many held-out seeds from 0 on, or a range of them.
        reference: the baseline whose final loss is the target of every seed; None for ``adam``,
            or else the first.
        lowest_lr: lower end of the grid of learning rates.
        highest_lr: upper end.
        num_lrs: tries of each baseline.
        num_tuning_seeds: runs of each try.
        tuned_for: of ``mean_loss`` and ``final_loss``; a baseline is one row for each.
        archive: folder of tuning runs, which are not run again; None to keep none.
        trust: modules to import where the files of a theta name classes of them.
        device: ``auto`` (the GPU where there is one), ``cpu`` or ``cuda``.
        compile: compile the inner steps.
        precision: of the matrix products of the optimizers, ``float32`` or ``bf16``.
        progress: show how far it is, on stderr.

    Returns:
        Comparison: printed, its tables and who is ahead; with ``frame``, ``table``,
        ``differences`` and ``report``.

    Raises:
        TypeError: an argument is something else than what it must be; names it.
        ValueError: a value is out of its range, a theta is missing or damaged, or fits no task.
        ConnectionError: the hub cannot be reached.

    >>> from learned_opt.optimizers.hand.references import make_adam
    >>> from tasks.quadratic import Quadratic
    >>> adam = partial(make_adam, lr=0.3)
    >>> comparison = compare(
    ...     {"untuned": adam}, Quadratic(), 10, seeds=4, num_lrs=3, num_tuning_seeds=1,
    ...     compile=False, progress=False,
    ... )
    >>> sorted(set(comparison.frame["optimizer"]))
    ['adam', 'sgdm', 'untuned']
    """
    if not isinstance(optimizers, Mapping) or not optimizers:
        raise TypeError("optimizers must be a mapping such as {'mine': result}, with one at least.")
    constructors = _baseline_constructors(baselines)
    budget = Budget(
        seeds=seeds,
        reference=reference,
        lowest_lr=lowest_lr,
        highest_lr=highest_lr,
        num_lrs=num_lrs,
        num_tuning_seeds=num_tuning_seeds,
        tuned_for=tuned_for,
        archive=archive,
    )
    tasks = arguments.named_tasks(task)
    loops = LoopSettings(compile, resolve_device(device), precision)
    named = {str(name): optimizer for name, optimizer in optimizers.items()}
    benchmarks = budget.benchmarks(arguments.of_each(horizon, list(tasks), "horizon"), constructors)
    results = run(named, tasks, benchmarks, loops, trusted_modules(trust), progress)
    return Comparison(results)


def heldout_seeds(seeds: int | range) -> range:
    """The held-out seeds that an argument means.

    Raises:
        TypeError: it is neither a number nor a range.
        ValueError: it holds none, or leaves some out.

    >>> heldout_seeds(3)
    range(0, 3)
    """
    if isinstance(seeds, range):
        if not seeds or seeds.step != 1 or seeds.start < 0:
            raise ValueError(f"seeds must be a range of neighbours from 0 on, got {seeds}.")
        return seeds
    arguments.check_count(1, seeds=seeds)
    return range(seeds)


def run(
    optimizers: Mapping[str, Learned],
    tasks: Mapping[str, TaskFamily],
    benchmarks: Mapping[str, Benchmark],
    loops: LoopSettings,
    trust: tuple[str, ...],
    progress: bool,
) -> Results:
    """Run the suite of an evaluation, the one that the commands run.

    Args:
        optimizers: as of ``compare``; an empty name stands for that which the optimizer has.
        tasks: by name.
        benchmarks: by the name of the task.
        loops: how inner steps run.
        trust: modules of others that a ``theta.json`` may name.
        progress: show how far it is, on stderr.

    Raises:
        TypeError: an optimizer is nothing of the kind.
        ValueError: see ``run_suite``.
    """
    keep_freed_memory()
    facts = provenance(0, loops.device, "learned_opt.compare(...)")
    with quiet_for_a_while(), torch.random.fork_rng(devices=[]):
        learned = []
        for name, optimizer in optimizers.items():
            learned.append(learned_contender(name, optimizer, tasks, loops, trust))

        settings = _settings(tasks, benchmarks, loops)
        with RunProgress() if progress else nullcontext(SILENT) as shown:
            return run_suite(settings, learned, None, facts, shown)


def _settings(
    tasks: Mapping[str, TaskFamily], benchmarks: Mapping[str, Benchmark], loops: LoopSettings
) -> Iterator[Setting]:
    for name, family in tasks.items():
        _, spec = symmetry_of(family)
        baselines = []
        for baseline, constructor in benchmarks[name].baselines.items():
            baselines.append(Contender(baseline, constructor, {}))
        yield Setting(
            name,
            family,
            spec,
            benchmarks[name],
            baselines,
            config=None,  # a task that is an object tells no more than its description
            compile=loops.compile,
            device=loops.device,
            precision=loops.precision,
        )


def _baseline_constructors(
    baselines: Mapping[str, Callable[..., MetaOptimizer]] | None,
) -> dict[str, Callable[..., MetaOptimizer]]:
    """Name -> constructor ``(spec, lr=)``."""
    if baselines is None:
        return {"sgdm": make_sgdm, "adam": make_adam}
    if not isinstance(baselines, Mapping):
        raise TypeError(
            "baselines must be a mapping such as {'adamax': torch.optim.Adamax}, "
            f"got {arguments.shown(baselines)}."
        )

    constructors = {}
    for name, constructor in baselines.items():
        example = "torch.optim.Adamax"
        arguments.check_constructor(constructor, f"baselines[{name!r}]", MetaOptimizer, example)
        constructors[str(name)] = _of_torch(constructor)
    return constructors


def _of_torch(constructor: Callable[..., MetaOptimizer]) -> Callable[..., MetaOptimizer]:
    """A class of ``torch.optim`` as a constructor ``(spec, lr=)``; others as they are."""
    is_partial = isinstance(constructor, partial)
    target = constructor.func if is_partial else constructor
    if not (isinstance(target, type) and issubclass(target, torch.optim.Optimizer)):
        return constructor
    settings = dict(constructor.keywords) if is_partial else {}
    settings.pop("lr", None)  # it is tuned
    return partial(make_torch, path=f"{target.__module__}.{target.__qualname__}", settings=settings)
