"""Running inner problems that outlive an estimate: what all estimators share.

Legend: N tasks that this process runs, R copies of each (2 for antithetic pairs), M = R N chains, K unroll length.
"""

import copy
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from learned_opt.core.rng import draw_key, generator
from learned_opt.core.tree import Tree, contiguous, leaves, tree_map
from learned_opt.estimators.meta_loss import MetaLoss
from learned_opt.estimators.share import Share
from learned_opt.inner.truncation import Truncation
from learned_opt.inner.unroll import Unroll

State = dict[str, Any]  # nested dicts of tensors, so that a checkpoint can hold it as it is


class Launch(NamedTuple):
    """What one unroll starts from.

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


class Population:
    """Keeps N tasks running, each in R chains with the same task, initial parameters and batches.

    A task restarts at the first unroll boundary at or after its horizon. Restarts are staggered: the first horizon of
    each task is cut at an unroll boundary, stratified over the tasks, so that every outer step sees all parts of the
    horizon in equal shares. Draws are keyed by the number of the task, so that it makes no difference which process
    runs it.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: tasks of all processes; this one runs all, unless ``shared`` says otherwise.
        unroll_length: inner steps K per estimate.
        num_copies: chains R of each task; chain ``r N + n`` is copy r of task n.
        meta_loss: what one unroll counts as.

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
        if num_tasks < 1:
            raise ValueError(f"num_tasks must be at least 1, got {num_tasks}.")
        if unroll_length < 1:
            raise ValueError(f"unroll_length must be at least 1, got {unroll_length}.")
        if meta_loss.split not in unroll.family.splits:
            raise ValueError(
                f"meta_loss.split is {meta_loss.split!r}, but task {unroll.family.name!r} keeps no such data; "
                "set task.valid_fraction above 0."
            )
        self.unroll, self.truncation = unroll, truncation
        self.num_tasks, self.unroll_length, self.num_copies = num_tasks, unroll_length, num_copies
        self.meta_loss = meta_loss
        self.share, self.tasks = Share(), range(num_tasks)

    def shared(self, share: Share) -> Self:
        """The same tasks, of which this process runs its share."""
        other = copy.copy(self)
        other.share, other.tasks = share, share.tasks(self.num_tasks)
        return other

    @property
    def num_inner_steps(self) -> int:
        """Inner steps of one estimate, all chains of all processes together."""
        return self.num_copies * self.num_tasks * self.unroll_length

    def init_state(self, source: torch.Generator) -> State:
        """Fresh chains with staggered step counters."""
        root = draw_key(source)
        horizon = self._horizons(root, self.tasks)
        boundaries = -(-horizon // self.unroll_length)
        offset = torch.rand((), generator=generator(root, "offset"))
        uniform = (torch.tensor(self.tasks) + offset) / self.num_tasks  # stratified
        chains = self.unroll.start([(root, i) for i in self.tasks] * self.num_copies)
        return {
            "chains": chains,
            "initial_loss": leaves(chains["params"])[0].new_full((len(self.tasks),), torch.inf),
            "horizon": horizon,
            "step": (uniform * boundaries).long() * self.unroll_length,
        }

    def restart(self, state: State, root: int) -> tuple[State, Tensor]:
        """Restart the tasks that are past their horizon; returns also which, ``(N,)`` bool on the CPU."""
        finished = state["step"] >= state["horizon"]
        which = finished.nonzero().flatten().tolist()
        if not which:
            return state, finished
        numbers = [self.tasks[i] for i in which]
        fresh = self.unroll.start([(root, number) for number in numbers] * self.num_copies)
        places = [i + r * len(self.tasks) for r in range(self.num_copies) for i in which]
        index = torch.tensor(places, device=self.unroll.device)
        horizon = state["horizon"].clone()
        horizon[finished] = self._horizons(root, numbers)
        restarted = {
            "chains": tree_map(
                lambda old, new: old.index_copy(0, index, new), state["chains"], fresh
            ),
            "initial_loss": state["initial_loss"].index_fill(0, index[: len(which)], torch.inf),
            "horizon": horizon,
            "step": state["step"].where(~finished, 0),
        }
        return restarted, finished

    def run(self, launch: Launch, remat: bool = False) -> tuple[Tensor, State]:
        """Unroll all chains by K steps.

        Args:
            launch: where from.
            remat: see ``Unroll.run``.

        Returns:
            tuple[Tensor, State]: the meta-loss of every chain, ``(R, N)``, nan where a loss or the params at the end
            are not finite; and the state K steps on, but for the step counters.
        """
        state = launch.state
        batches = self._batches(launch, "train")
        measured = (
            None if self.meta_loss.split == "train" else self._batches(launch, self.meta_loss.split)
        )
        losses, chains = self.unroll.run(launch.theta, state["chains"], batches, remat, measured)
        # copies start alike, so that the first loss since the restart is that of all
        first = losses.detach()[0, : len(self.tasks)].to(state["initial_loss"])
        initial = state["initial_loss"].where(state["initial_loss"].isfinite(), first)
        finite = torch.stack(
            [leaf.isfinite().reshape(len(leaf), -1).all(1) for leaf in leaves(chains["params"])]
        ).all(0)
        finite = finite & losses.isfinite().all(0)
        values = self.meta_loss(losses, initial.to(losses).repeat(self.num_copies)).where(
            finite, torch.nan
        )
        # one layout, whatever the last step left: a resumed run must meet the same compiled code
        after = state | {"chains": contiguous(chains), "initial_loss": initial}
        return values.unflatten(0, (self.num_copies, len(self.tasks))), after

    def advance(self, state: State, healthy: Tensor) -> State:
        """Count the steps of an unroll; a task that is not healthy, ``(N,)`` bool, restarts at the next estimate."""
        step = (state["step"] + self.unroll_length).where(healthy.cpu(), state["horizon"])
        return state | {"step": step}

    def mean(self, losses: Tensor, healthy: Tensor) -> tuple[Tensor, Tensor]:
        """Over the healthy tasks of all processes: their number, 1 if there is none, and their mean loss, nan if none.

        Args:
            losses: ``(N,)``.
            healthy: ``(N,)`` bool.
        """
        sums = torch.stack([healthy.to(losses).sum(), losses.where(healthy, 0).sum()])
        count, total = self.share.total(sums)
        return count.clamp(min=1), torch.where(count > 0, total / count, torch.nan)

    def _batches(self, launch: Launch, split: str) -> Tree:
        """Leaves ``(K, M, ...)``; the copies of a task share theirs."""
        keys = [(launch.root, i) for i in self.tasks]
        batches = self.unroll.batches(keys, launch.state["chains"], self.unroll_length, split)
        return tree_map(lambda leaf: torch.cat([leaf] * self.num_copies, 1), batches)

    def _horizons(self, root: int, numbers: Sequence[int]) -> Tensor:
        return torch.tensor(
            [self.truncation.sample(generator(root, i, "horizon")) for i in numbers]
        )
