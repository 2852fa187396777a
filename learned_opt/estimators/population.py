"""Running inner problems that outlive an estimate: what estimators are made of.

Legend: N tasks that this process runs (pairs in evolution strategies), R copies of each
(2 for antithetic pairs), M = R N chains, K inner steps of an unroll.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor

from learned_opt.core.checks import check_at_least
from learned_opt.core.rng import Key, draw_key, generator
from learned_opt.core.tree import Tree, contiguous, leaves, tree_map
from learned_opt.estimators.base import State
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.share import Share
from learned_opt.inner.truncation import Truncation
from learned_opt.inner.unroll import Unroll


class UnrollStart(NamedTuple):
    """What one unroll starts from: all copies of the tasks, or some of them.

    Args:
        theta: of every chain, leaves ``(M, *shape)``.
        state: of the population, restarts done.
        root: key of the draws; the batches of task n are those of key ``(root, n)``.
        tasks: numbers of the N tasks among those of all processes.
    """

    theta: Tree
    state: State
    root: int
    tasks: range

    def copies(self, first: int, stop: int) -> "UnrollStart":
        """The start of the copies from ``first`` to ``stop`` alone."""
        rows = slice(first * len(self.tasks), stop * len(self.tasks))
        theta = tree_map(lambda leaf: leaf[rows], self.theta)
        state = select_copies(self.state, len(self.tasks), first, stop)
        return self._replace(theta=theta, state=state)


class Population:
    """Keeps N tasks running, each in R chains that start and train on the same data.

    A task restarts at the first unroll boundary at or after its horizon. Restarts are staggered:
    the first horizon of each task is cut at an unroll boundary, stratified over the tasks, so
    that every outer step sees all parts of the horizon in equal shares. Draws are keyed by the
    number of the task, so that it makes no difference which process runs it.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: tasks of all processes; this one runs all, unless ``shared`` made it.
        unroll_length: inner steps K per estimate.
        num_copies: chains R of each task; chain ``r N + n`` is copy r of task n.
        meta_loss: the number that an unroll counts as.

    Raises:
        ValueError: a count is not positive, or the task has no data for the meta-loss.
    """

    def __init__(
        self,
        unroll: Unroll,
        truncation: Truncation,
        num_tasks: int,
        unroll_length: int,
        num_copies: int,
        meta_loss: MetaLoss,
    ) -> None:
        check_at_least(1, num_tasks=num_tasks, unroll_length=unroll_length)
        if meta_loss.split not in unroll.family.splits:
            raise ValueError(
                f"meta_loss.split is {meta_loss.split!r}, but task {unroll.family.name!r} keeps "
                "no such data; set the task's valid_fraction above 0."
            )

        self.unroll = unroll
        self.truncation = truncation
        self.num_tasks = num_tasks
        self.unroll_length = unroll_length
        self.num_copies = num_copies
        self.meta_loss = meta_loss
        self.share = Share()
        self.tasks = range(num_tasks)

    def shared(self, share: Share) -> Self:
        """The same tasks, of which this process runs its share."""
        other = copy.copy(self)
        other.share = share
        other.tasks = share.tasks(self.num_tasks)
        return other

    @property
    def num_inner_steps(self) -> int:
        """Inner steps of one estimate, all chains of all processes together."""
        return self.num_copies * self.num_tasks * self.unroll_length

    def init_state(self, source: torch.Generator) -> State:
        """Fresh chains with staggered step counters."""
        root = draw_key(source)
        horizon = self._horizons(root, self.tasks)  # (N,)
        boundaries = -(-horizon // self.unroll_length)

        # one offset for all: the tasks' positions in their horizons are a stratified sample
        offset = torch.rand((), generator=generator(root, "offset"))
        position = (torch.tensor(self.tasks) + offset) / self.num_tasks

        keys = [(root, task) for task in self.tasks]
        chains = self._fresh(keys, horizon)
        like = leaves(chains["params"])[0]
        return {
            "chains": chains,
            "initial_loss": like.new_full((len(self.tasks),), torch.inf),
            "horizon": horizon,
            "step": (position * boundaries).long() * self.unroll_length,
        }

    def restart(self, state: State, root: int) -> tuple[State, Tensor]:
        """Restart the tasks that are past their horizon.

        Args:
            state: of the population.
            root: key of the draws.

        Returns:
            tuple[State, Tensor]: the state, and which tasks restarted, ``(N,)`` bool on the CPU.
        """
        finished = state["step"] >= state["horizon"]
        rows = finished.nonzero().flatten().tolist()
        if not rows:
            return state, finished

        numbers = [self.tasks[row] for row in rows]
        keys = [(root, number) for number in numbers]
        horizons = self._horizons(root, numbers)
        fresh = self._fresh(keys, horizons)

        num_rows = len(self.tasks)
        chain_rows = [row + r * num_rows for r in range(self.num_copies) for row in rows]
        index = torch.tensor(chain_rows, device=self.unroll.device)
        horizon = state["horizon"].clone()
        horizon[finished] = horizons

        def replaced(old: Tensor, new: Tensor) -> Tensor:
            return old.index_copy(0, index, new)

        restarted = {
            "chains": tree_map(replaced, state["chains"], fresh),
            "initial_loss": state["initial_loss"].index_fill(0, index[: len(rows)], torch.inf),
            "horizon": horizon,
            "step": state["step"].where(~finished, 0),
        }
        return restarted, finished

    def run(self, start: UnrollStart, remat: bool = False) -> tuple[Tensor, State]:
        """Unroll chains by K inner steps.

        Args:
            start: where from, all copies of the tasks or R of them.
            remat: whether a backward pass computes every inner step again, as of ``Unroll.run``.

        Returns:
            tuple[Tensor, State]: the meta-loss of every chain, ``(R, N)``, nan where a loss or
            the params at the end are not finite; and the state K inner steps on, but for the
            step counters.
        """
        state = start.state
        num_copies = len(leaves(start.theta)[0]) // len(self.tasks)
        batches = self._batches(start, "train", num_copies)
        measured = None
        if self.meta_loss.split != "train":
            measured = self._batches(start, self.meta_loss.split, num_copies)
        losses, chains = self.unroll.run(
            start.theta, state["chains"], batches, remat, measured
        )  # losses (K, M)

        # copies start alike, so that the first loss since the restart is that of all
        first = losses.detach()[0, : len(self.tasks)].to(state["initial_loss"])
        initial = state["initial_loss"].where(state["initial_loss"].isfinite(), first)  # (N,)

        by_leaf = []
        for leaf in leaves(chains["params"]):
            by_leaf.append(leaf.isfinite().reshape(len(leaf), -1).all(1))
        finite = torch.stack(by_leaf).all(0)
        finite = finite & losses.isfinite().all(0)  # (M,)

        values = self.meta_loss(losses, initial.to(losses).repeat(num_copies))
        values = values.where(finite, torch.nan)

        # one layout, whatever the last step left: a resumed run must meet the same compiled code
        after = state | {"chains": contiguous(chains), "initial_loss": initial}
        return values.unflatten(0, (num_copies, len(self.tasks))), after

    def advance(self, state: State, healthy: Tensor) -> State:
        """Count the inner steps of an unroll.

        Args:
            state: after ``run``.
            healthy: ``(N,)`` bool; a task that is not restarts at the next estimate.
        """
        step = (state["step"] + self.unroll_length).where(healthy.cpu(), state["horizon"])
        return state | {"step": step}

    def mean(self, losses: Tensor, healthy: Tensor) -> tuple[Tensor, Tensor]:
        """Count the healthy tasks of all processes and average their losses.

        Args:
            losses: ``(N,)``.
            healthy: ``(N,)`` bool.

        Returns:
            tuple[Tensor, Tensor]: their number, 1 if there is none, and their mean loss, nan if
            there is none.
        """
        sums = torch.stack([healthy.to(losses).sum(), losses.where(healthy, 0).sum()])
        count, total = self.share.total(sums)
        return count.clamp(min=1), torch.where(count > 0, total / count, torch.nan)

    def _batches(self, start: UnrollStart, split: str, num_copies: int) -> Tree:
        """Leaves ``(K, M, ...)``; the copies of a task share theirs."""
        keys = [(start.root, task) for task in self.tasks]
        batches = self.unroll.batches(keys, start.state["chains"], self.unroll_length, split)
        return tree_map(lambda leaf: torch.cat([leaf] * num_copies, 1), batches)

    def _fresh(self, keys: Sequence[tuple[Key, ...]], horizons: Tensor) -> Tree:
        """Chains that start, all copies of the tasks of these keys."""
        first = self.unroll.start(keys, horizons.tolist())
        return tree_map(lambda leaf: torch.cat([leaf] * self.num_copies), first)

    def _horizons(self, root: int, numbers: Sequence[int]) -> Tensor:
        """Horizons of the tasks of these numbers, in inner steps."""
        horizons = []
        for number in numbers:
            horizons.append(self.truncation.sample(generator(root, number, "horizon")))
        return torch.tensor(horizons)


def select_copies(state: State, num_tasks: int, first: int, stop: int) -> State:
    """The state of a population with the chains of some copies of every task alone.

    Args:
        state: of the population.
        num_tasks: N.
        first: number of the first copy.
        stop: number after that of the last copy.
    """
    rows = slice(first * num_tasks, stop * num_tasks)
    return state | {"chains": tree_map(lambda leaf: leaf[rows], state["chains"])}


def join_copies(first: State, second: State) -> State:
    """The state of all copies from those of two parts after the same unroll."""

    def join(left: Tensor, right: Tensor) -> Tensor:
        return torch.cat([left, right])

    return first | {"chains": tree_map(join, first["chains"], second["chains"])}
