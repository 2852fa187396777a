"""A learned optimizer against tuned baselines on held-out seeds."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from learned_opt import tree
from learned_opt.evaluation.benchmark import run_seeds, time_steps
from learned_opt.evaluation.tables import Entry
from learned_opt.evaluation.tuning import log_grid, theta_at, tune
from learned_opt.meta.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.tree import Tree


class Comparison(NamedTuple):
    """What a comparison on one task came to.

    Args:
        entries: by name, the learned optimizer first.
        warnings: sentences that a reader of the numbers must know.
    """

    entries: dict[str, Entry]
    warnings: list[str]


@dataclass(frozen=True)
class Benchmark:
    """How optimizers are compared; equal tries and equal seeds for every baseline.

    Args:
        horizon: inner steps of every run.
        num_seeds: held-out seeds.
        num_chains: runs that go side by side.
        baselines: name -> constructor ``(spec, lr=...)``.
        lowest_lr: lower end of the learning-rate grid.
        highest_lr: upper end.
        num_lrs: tries of each baseline.
        num_tuning_seeds: runs of each try.

    Raises:
        ValueError: a count is not positive.
    """

    horizon: int
    num_seeds: int
    num_chains: int
    baselines: dict[str, Callable[..., MetaOptimizer]]
    lowest_lr: float
    highest_lr: float
    num_lrs: int
    num_tuning_seeds: int

    def __post_init__(self) -> None:
        for name in ("horizon", "num_seeds", "num_chains", "num_tuning_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        log_grid(self.lowest_lr, self.highest_lr, self.num_lrs)


def compare(
    unroll: Unroll, name: str, benchmark: Benchmark, compile: bool, say: Callable[[str], None] = lambda text: None
) -> Comparison:
    """Tune the baselines, run everything on the held-out seeds, time the steps.

    A baseline is tuned twice from the same runs: for the mean loss, and, where another learning rate is best for it,
    for the final loss (entry ``NAME-final``).

    Args:
        unroll: the inner loop of the learned optimizer.
        name: its name in the tables.
        benchmark: settings.
        compile: compile the baselines' inner steps too.
        say: called with a line on what is being done.
    """
    chains, theta = benchmark.num_chains, {k: p.detach() for k, p in unroll.optimizer.named_parameters()}
    contenders: dict[str, tuple[Unroll, Tree, float | None]] = {name: (unroll, theta, None)}
    grid, warnings = log_grid(benchmark.lowest_lr, benchmark.highest_lr, benchmark.num_lrs), []
    for baseline, constructor in benchmark.baselines.items():
        say(f"tuning {baseline}: {len(grid)} learning rates x {benchmark.num_tuning_seeds} seeds")
        own = Unroll(unroll.family, constructor(unroll.optimizer.spec), compile, unroll.device)
        tuned = tune(own, constructor, grid, benchmark.num_tuning_seeds, benchmark.horizon, chains)
        for criterion, label in (("mean_loss", baseline), ("final_loss", f"{baseline}-final")):
            lr = tuned.best(criterion)
            if label == baseline or lr != tuned.best("mean_loss"):
                at_lr = tree.to(theta_at(constructor, own.optimizer, lr), own.device)
                contenders[label] = (own, at_lr, lr)
            if label in contenders and tuned.at_edge(criterion):
                warnings.append(f"the best learning rate of {label} is at the edge of the grid ({lr:.3g}): widen it")
    say(f"running {', '.join(contenders)} on {benchmark.num_seeds} held-out seeds")
    times = time_steps({label: (own, at) for label, (own, at, _) in contenders.items()}, chains)
    entries = {}
    for label, (own, at, lr) in contenders.items():
        many = tree.expand(at, benchmark.num_seeds)
        runs = run_seeds(own, many, "heldout", range(benchmark.num_seeds), benchmark.horizon, chains)
        entries[label] = Entry(runs, times[label], lr)
    return Comparison(entries, warnings)
