"""Whether a training fits into memory, before it starts, and what ``num_tasks=auto`` stands for."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from learned_opt.compose.inner_problems import Problem
from learned_opt.compose.resolve import AUTO, says_auto, with_num_tasks
from learned_opt.core.errors import UsageError, usage_errors
from learned_opt.estimators.footprint import Footprint, footprint
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.estimators.single_process import as_shared
from learned_opt.inner.truncation import Constant
from learned_opt.inner.unroll import Unroll
from learned_opt.runtime.memory import available_bytes
from learned_opt.runtime.ranks import ALONE, World
from learned_opt.training.inner_problem import labels

# measured peaks of compiled estimates are 0.42 to 1.01 of the prediction, which is eager
LEAST_SHARE_COMPILED = 0.4


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
        """The prediction as one line for people."""
        per_chain = readable(self.peak * self.num_ranks / self.num_chains)
        where = f" on each of {self.num_ranks} ranks" if self.num_ranks > 1 else ""
        return (
            f"at most {readable(self.peak)} at the peak{where}, {per_chain} per chain; "
            f"{readable(self.available)} available"
        )


def size(
    cfg: DictConfig,
    problems: Mapping[str, Problem],
    world: World = ALONE,
    resumed: Mapping[str, int] | None = None,
) -> Memory:
    """Predict the peak memory of an outer step, and how many tasks ``auto`` stands for.

    The peaks of the tasks of a mix are added up: their chains live side by side, though their
    unrolls take turns.

    Args:
        cfg: the composed config.
        problems: from ``build_problems``.
        world: the ranks that share the tasks, and the memory of a machine unless each has a GPU of
            its own.
        resumed: numbers of tasks, by label, of the checkpoint from which the run goes on: what
            ``auto`` stood for.

    Raises:
        UsageError: an outer step does not fit, or a value is out of its range.
    """
    with usage_errors():
        if not 0 < cfg.memory_share <= 1:
            raise ValueError(
                f"memory_share must lie above 0 and not above 1, got {cfg.memory_share}."
            )

        _refuse_idle_ranks(problems, world)
        available = _available(next(iter(problems.values())).unroll.device, world)
        sizes = [_Size(problem) for problem in problems.values()]

        automatic = None
        if any(says_auto(problem.cfg) for problem in problems.values()):
            # a resumed run keeps its number, however much memory is free today
            automatic = _resumed(problems, resumed or {})
            if automatic is None:
                room = cfg.memory_share * available
                automatic = world.num_ranks * largest(
                    lambda number: _peak(sizes, number * world.num_ranks, world) <= room
                )

        num_chains = sum(each.num_chains(automatic) for each in sizes)

    peak = _peak(sizes, automatic, world)
    if peak * (LEAST_SHARE_COMPILED if cfg.compile else 1) > available:
        lower = "" if automatic else "estimator.num_tasks, "
        raise UsageError(
            f"an outer step of {num_chains} chains needs about {readable(peak)} at its peak, but "
            f"{readable(available)} are available; lower {lower}"
            "the inner network or, for bptt, estimator.unroll_length."
        )

    return Memory(peak, available, num_chains, automatic, world.num_ranks)


def _refuse_idle_ranks(problems: Mapping[str, Problem], world: World) -> None:
    """Every rank needs a task of each kind; said before the other ranks are started."""
    if world.num_ranks == 1:
        return
    for problem in problems.values():
        number = problem.cfg.estimator.num_tasks
        if isinstance(number, int) and number < world.num_ranks:
            raise ValueError(
                f"estimator.num_tasks must be at least the number of ranks, got {number} for "
                f"{world.num_ranks}; raise it, or lower trainer.devices or trainer.num_nodes."
            )


def settled(
    cfg: DictConfig, problems: Mapping[str, Problem], memory: Memory
) -> tuple[DictConfig, dict[str, Problem]]:
    """The config and the problems with the number that ``auto`` stands for.

    Args:
        cfg: the composed config.
        problems: from ``build_problems``.
        memory: from ``size``.
    """
    if memory.automatic is None:
        return cfg, dict(problems)
    sized = {}
    for name, problem in problems.items():
        sized[name] = replace(problem, cfg=with_num_tasks(problem.cfg, memory.automatic))
    return with_num_tasks(cfg, memory.automatic), sized


def largest(fits: Callable[[int], bool]) -> int:
    """The largest power of two that fits, 1 where none does.

    Powers of two, so that a little more or less of free memory gives the same run.

    >>> largest(lambda number: number <= 12)
    8
    """
    number = 1
    while fits(2 * number):
        number *= 2
    return number


def resolved(overrides: Sequence[str], automatic: int | None) -> list[str]:
    """Overrides of a command line with the number in place of ``auto``.

    A run that is resumed with them has the chains that it had.
    """
    words = []
    for word in overrides:
        says_so = word.endswith(f"estimator.num_tasks={AUTO}")
        words.append(word.removesuffix(AUTO) + str(automatic) if says_so else word)
    return words


def readable(num_bytes: float) -> str:
    """Bytes in the unit that suits them, three digits.

    >>> readable(3 * 2**20)
    '3 MiB'
    """
    for unit in ("B", "KiB", "MiB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1024
    return f"{num_bytes:.3g} GiB" if num_bytes < 1000 else f"{num_bytes:,.0f} GiB"


class _Size:
    """What the memory of one problem depends on."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.num_tasks = problem.cfg.estimator.num_tasks
        self.unroll_length = problem.cfg.estimator.unroll_length
        theta = {name: p.detach() for name, p in problem.optimizer.named_parameters()}
        self.footprint: Footprint = footprint(partial(_estimator, problem), theta)

    def number(self, automatic: int | None) -> int:
        if self.num_tasks != AUTO:
            return self.num_tasks
        assert automatic is not None, "a problem that says auto is sized with a number"
        return automatic

    def num_chains(self, automatic: int | None) -> int:
        estimator = _estimator(self.problem, self.number(automatic), self.unroll_length)
        return estimator.num_inner_steps // self.unroll_length


def _peak(sizes: Sequence[_Size], automatic: int | None, world: World) -> int:
    """Bytes at the peak on one rank, which takes its share of the tasks."""
    peak = 0
    for each in sizes:
        # rounded up: the rank with the most tasks decides
        share = -(-each.number(automatic) // world.num_ranks)
        peak += each.footprint.peak_bytes(share, each.unroll_length)
    return peak


def _available(device: torch.device, world: World) -> int:
    # ranks of a machine share its memory, but each has a GPU to itself
    ranks_beside = world.num_local if device.type == "cpu" else 1
    return available_bytes(device) // ranks_beside


def _estimator(problem: Problem, num_tasks: int, unroll_length: int) -> SharedEstimator:
    """The estimator of a problem in another size, run eagerly.

    All its chains restart after every unroll.
    """
    unroll = problem.unroll
    eager = Unroll(
        unroll.family,
        problem.optimizer,
        compile=False,
        device=unroll.device,
        precision=problem.cfg.precision,
        recompute=unroll.compiles,
    )

    node = problem.cfg.estimator
    constructor = instantiate(node, num_tasks=num_tasks, unroll_length=unroll_length)
    return as_shared(constructor(unroll=eager, truncation=Constant(unroll_length)))


def _resumed(problems: Mapping[str, Problem], numbers: Mapping[str, int]) -> int | None:
    """The number of tasks in a checkpoint of a problem that says ``auto``."""
    for label, problem in zip(labels(problems), problems.values(), strict=True):
        if says_auto(problem.cfg):
            return numbers.get(label)
    return None
