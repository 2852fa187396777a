"""How optimizers are compared: horizon, held-out seeds, and the budget for tuning baselines."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from learned_opt.evaluation.progress import SILENT, Progress
from learned_opt.evaluation.seeded_runs import SEGMENT
from learned_opt.evaluation.tuning import Tuned, linear_grid, log_grid, tune
from learned_opt.evaluation.tuning_archive import BEST_TEST_LOSS
from learned_opt.inner.unroll import Unroll
from learned_opt.optimizers.base import MetaOptimizer

CRITERIA = ("mean_loss", "final_loss")  # what learning rates are chosen for, if nothing is said
GRIDS = {"log": log_grid, "linear": linear_grid}


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
        reference: the baseline whose final loss is the target of every seed, and whose steps to it
            others are counted against. Without baselines there is no target.
        tuned_for: criteria, of ``mean_loss``, ``final_loss`` and, where ``heldout_every`` is set,
            ``test_loss`` (the lowest one measured), for which learning rates are chosen, all from
            the same runs. A baseline is one row for each criterion, the first under its name,
            another as ``NAME-final`` (or mean, or test), and only where another learning rate is
            best for it.
        first_seed: the first of the held-out seeds. A range that nobody has seen yet is what a
            published table needs.
        ledger: folder that keeps each use of held-out seeds, see ``heldout_ledger``; None to keep
            none.
        heldout_every: inner steps between two measurements of the test loss during a run, for
            the steps to the reference's best test loss; a divisor of 50. None for none.
        compares: whether a meta-training ends with this comparison.
        spacing: of the grid, ``log`` or ``linear``.
        target_loss: training loss that is the target of every seed, in place of the final loss of
            the reference; None for that.

    Raises:
        ValueError: a count is not positive, the first seed is negative, the grid is none, the
            reference is no baseline, or a criterion is unknown or not measured.
    """

    horizon: int
    num_seeds: int
    num_chains: int
    baselines: Mapping[str, Callable[..., MetaOptimizer]]
    lowest_lr: float
    highest_lr: float
    num_lrs: int
    num_tuning_seeds: int
    archive: str | None = None
    reference: str = "adam"
    tuned_for: Sequence[str] = CRITERIA
    first_seed: int = 0
    ledger: str | None = None
    heldout_every: int | None = None
    compares: bool = True
    spacing: str = "log"
    target_loss: float | None = None

    def __post_init__(self) -> None:
        for name in ("horizon", "num_seeds", "num_chains", "num_tuning_seeds"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")

        if self.first_seed < 0:
            raise ValueError(f"first_seed must be at least 0, got {self.first_seed}.")

        if self.heldout_every is not None and (
            self.heldout_every < 1 or SEGMENT % self.heldout_every
        ):
            raise ValueError(
                f"heldout_every must be a divisor of {SEGMENT}, got {self.heldout_every}."
            )

        if self.spacing not in GRIDS:
            raise ValueError(f"spacing must be among {', '.join(GRIDS)}, got {self.spacing!r}.")
        assert self.learning_rates, "refuses a grid that is none"

        if self.baselines and self.reference not in self.baselines:
            names = ", ".join(self.baselines)
            raise ValueError(
                f"reference must be one of the baselines {names}, got {self.reference!r}."
            )
        if not self.tuned_for:
            raise ValueError(f"tuned_for must name at least one of {', '.join(CRITERIA)}.")

        for criterion in self.tuned_for:
            if criterion not in (*CRITERIA, BEST_TEST_LOSS):
                choices = ", ".join((*CRITERIA, BEST_TEST_LOSS))
                raise ValueError(f"tuned_for must be among {choices}, got {criterion!r}.")
        if BEST_TEST_LOSS in self.tuned_for and not self.heldout_every:
            raise ValueError(f"tuned_for {BEST_TEST_LOSS} needs heldout_every, the steps between.")

    @property
    def learning_rates(self) -> list[float]:
        """The tries of each baseline."""
        return GRIDS[self.spacing](self.lowest_lr, self.highest_lr, self.num_lrs)

    @property
    def heldout_seeds(self) -> range:
        """The seeds of the runs that are compared."""
        return range(self.first_seed, self.first_seed + self.num_seeds)

    @property
    def num_tuning_runs(self) -> int:
        """Inner training runs of the tuning of one baseline."""
        return self.num_lrs * self.num_tuning_seeds


def tune_for(
    benchmark: Benchmark,
    unroll: Unroll,
    constructor: Callable[..., MetaOptimizer],
    progress: Progress = SILENT,
) -> Tuned:
    """Spend the tuning budget of a benchmark on one baseline.

    Args:
        benchmark: the budget.
        unroll: the inner loop of the baseline.
        constructor: ``(spec, lr=...)`` of the baseline.
        progress: told of the runs as they go on.
    """
    return tune(
        unroll,
        constructor,
        benchmark.learning_rates,
        benchmark.num_tuning_seeds,
        benchmark.horizon,
        benchmark.num_chains,
        Path(benchmark.archive) if benchmark.archive else None,
        progress,
        benchmark.heldout_every if BEST_TEST_LOSS in benchmark.tuned_for else None,
    )
