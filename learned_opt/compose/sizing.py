"""Whether a training fits into memory, before it starts; ``estimator.num_tasks=auto`` is resolved here."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.inner_problems import Problem, labels
from learned_opt.core.errors import UsageError, usage_errors
from learned_opt.estimators.footprint import Footprint, footprint
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.estimators.single_process import as_shared
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.runtime.memory import available_bytes
from learned_opt.runtime.ranks import ALONE, World

AUTO = "auto"
LEAST_SHARE_COMPILED = (
    0.4  # measured peaks of compiled estimates are 0.42 to 0.93 of the prediction, which is eager
)


@dataclass(frozen=True)
class Memory:
    """What an outer step is predicted to need.

    Args:
        peak: bytes at the peak on one rank, run eagerly.
        available: bytes that were free for one rank before.
        num_chains: chains of all tasks on all ranks together.
        automatic: the number of tasks that ``auto`` stands for; None where nothing says so.
        num_ranks: processes that share the tasks.
    """

    peak: int
    available: int
    num_chains: int
    automatic: int | None
    num_ranks: int = 1

    def __str__(self) -> str:
        """One line for people."""
        each, ranks = readable(self.peak * self.num_ranks / self.num_chains), self.num_ranks
        where = f" on each of {ranks} ranks" if ranks > 1 else ""
        return f"at most {readable(self.peak)} at the peak{where}, {each} per chain; {readable(self.available)} available"


def size(
    cfg: DictConfig,
    problems: dict[str, Problem],
    place: World = ALONE,
    resumed: Mapping[str, int] | None = None,
) -> Memory:
    """Predict the peak memory of an outer step; write the number of tasks into the configs that say ``auto``.

    The peaks of the tasks of a mix are added up: their chains live side by side, though their unrolls take turns.

    Args:
        cfg: the composed config.
        problems: from ``build_problems``; their ``estimator.num_tasks`` are numbers afterwards.
        place: the ranks that share the tasks, and the memory of a machine unless each has a GPU of its own.
        resumed: numbers of tasks, by label, of the checkpoint from which the run goes on: what ``auto`` stood for.

    Raises:
        UsageError: an outer step does not fit, or a value is out of its range.
    """
    configs = [problem.cfg for problem in problems.values()]
    with usage_errors():
        if not 0 < cfg.memory_share <= 1:
            raise ValueError(
                f"memory_share must lie above 0 and not above 1, got {cfg.memory_share}."
            )
        device = next(iter(problems.values())).unroll.device
        available = available_bytes(device) // (place.num_local if device.type == "cpu" else 1)
        needs = [_footprint(problem) for problem in problems.values()]

        def peak(automatic: int) -> int:
            pairs = zip(needs, configs, strict=True)
            sizes = [
                (need, _number(own, automatic), own.estimator.unroll_length) for need, own in pairs
            ]
            return sum(
                need.peak_bytes(-(-number // place.num_ranks), length)
                for need, number, length in sizes
            )

        automatic = None
        if any(own.estimator.num_tasks == AUTO for own in configs):
            automatic = _resumed(problems, resumed or {})
            if automatic is None:
                fits = largest(
                    lambda number: peak(number * place.num_ranks) <= cfg.memory_share * available
                )
                automatic = fits * place.num_ranks
            _write(automatic, [cfg, *cfg.get("mix", {}).values(), *configs])
        num_chains = sum(map(_num_chains, problems.values()))
    needed = peak(0)
    if needed * (LEAST_SHARE_COMPILED if cfg.compile else 1) > available:
        raise UsageError(
            f"an outer step of {num_chains} chains needs about {readable(needed)} at its peak, but "
            f"{readable(available)} are available; lower {'' if automatic else 'estimator.num_tasks, '}"
            "the inner network or, for bptt, estimator.unroll_length."
        )
    return Memory(needed, available, num_chains, automatic, place.num_ranks)


def largest(fits: Callable[[int], bool]) -> int:
    """The largest power of two that fits, 1 where none does.

    Powers of two, so that a little more or less of free memory gives the same run.
    """
    number = 1
    while fits(2 * number):
        number *= 2
    return number


def resolved(overrides: Sequence[str], automatic: int | None) -> list[str]:
    """Overrides of a command line with the number in place of ``auto``: a resumed run has the chains that it had."""
    end = f"estimator.num_tasks={AUTO}"
    return [
        word.removesuffix(AUTO) + str(automatic) if word.endswith(end) else word
        for word in overrides
    ]


def _estimator(problem: Problem, num_tasks: int, unroll_length: int) -> SharedEstimator:
    """The estimator of a problem in another size, run eagerly, all chains of which restart after every unroll."""
    unroll, cfg = problem.unroll, problem.cfg
    eager = Unroll(
        unroll.family,
        problem.optimizer,
        compile=False,
        device=unroll.device,
        precision=cfg.precision,
    )
    constructor = instantiate(cfg.estimator, num_tasks=num_tasks, unroll_length=unroll_length)
    return as_shared(constructor(unroll=eager, truncation=Constant(unroll_length)))


def _footprint(problem: Problem) -> Footprint:
    theta = {name: p.detach() for name, p in problem.optimizer.named_parameters()}
    return footprint(partial(_estimator, problem), theta)


def _num_chains(problem: Problem) -> int:
    sizes = problem.cfg.estimator
    return (
        _estimator(problem, sizes.num_tasks, sizes.unroll_length).num_inner_steps
        // sizes.unroll_length
    )


def _resumed(problems: dict[str, Problem], numbers: Mapping[str, int]) -> int | None:
    """The number of tasks in a checkpoint of a problem that says ``auto``."""
    pairs = zip(labels(problems), problems.values(), strict=True)
    return next(
        (numbers.get(label) for label, p in pairs if p.cfg.estimator.num_tasks == AUTO), None
    )


def _number(cfg: DictConfig, automatic: int) -> int:
    return automatic if cfg.estimator.num_tasks == AUTO else cfg.estimator.num_tasks


def _write(automatic: int, configs: Sequence[DictConfig]) -> None:
    for cfg in configs:
        if OmegaConf.select(cfg, "estimator.num_tasks") == AUTO:
            cfg.estimator.num_tasks = automatic


def readable(num_bytes: float) -> str:
    """Bytes in the unit that suits them, three digits."""
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} GiB" if num_bytes < 1000 else f"{num_bytes:,.0f} GiB"
