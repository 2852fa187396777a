"""How optimizers are compared: horizon, held-out seeds, and the budget for tuning baselines."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from learned_opt.evaluation.tuning import Tuned, log_grid, tune
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer


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
        archive: folder of tuning runs, which are not run again; None to keep none.

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
    archive: str | None = None

    def __post_init__(self) -> None:
        for name in ("horizon", "num_seeds", "num_chains", "num_tuning_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        log_grid(self.lowest_lr, self.highest_lr, self.num_lrs)


def tune_for(
    benchmark: Benchmark, unroll: Unroll, constructor: Callable[..., MetaOptimizer]
) -> Tuned:
    """Spend the tuning budget of a benchmark on one baseline."""
    grid = log_grid(benchmark.lowest_lr, benchmark.highest_lr, benchmark.num_lrs)
    archive = Path(benchmark.archive) if benchmark.archive else None
    seeds, horizon, chains = benchmark.num_tuning_seeds, benchmark.horizon, benchmark.num_chains
    return tune(unroll, constructor, grid, seeds, horizon, chains, archive)
