"""Running inner problems that outlive an estimate: what all estimators share.

Legend: N tasks, R copies of each (2 for antithetic pairs), M = R N chains, K unroll length.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from learned_opt.meta.truncation import Truncation
from learned_opt.meta.unroll import Chains, Unroll
from learned_opt.rng import draw_key, generator
from learned_opt.tree import Tree, tree_map

State = dict[str, Any]  # nested dicts of tensors, so that a checkpoint can hold it as it is
META_LOSSES = ("mean", "final", "min")


class Population:
    """Keeps N tasks running, each in R chains with the same task, initial parameters and batches.

    A task restarts at the first unroll boundary at or after its horizon. Restarts are staggered: the first horizon of
    each task is cut at an unroll boundary, stratified over the tasks, so that every outer step sees all parts of the
    horizon in equal shares.

    Args:
        unroll: the inner loop.
        truncation: distribution of horizons.
        num_tasks: tasks N.
        unroll_length: inner steps K per estimate.
        num_copies: chains R of each task; chain ``r N + n`` is copy r of task n.
        meta_loss: what one unroll counts as, ``mean``, ``final`` or ``min`` of its losses.

    Raises:
        ValueError: a count is not positive, or an unknown meta-loss.
    """

    def __init__(
        self,
        unroll: Unroll,
        truncation: Truncation,
        num_tasks: int,
        unroll_length: int,
        num_copies: int,
        meta_loss: str,
    ) -> None:
        if num_tasks < 1:
            raise ValueError(f"num_tasks must be at least 1, got {num_tasks}.")
        if unroll_length < 1:
            raise ValueError(f"unroll_length must be at least 1, got {unroll_length}.")
        if meta_loss not in META_LOSSES:
            raise ValueError(f"meta_loss must be one of {', '.join(META_LOSSES)}, got {meta_loss!r}.")
        self.unroll, self.truncation = unroll, truncation
        self.num_tasks, self.unroll_length, self.num_copies = num_tasks, unroll_length, num_copies
        self.meta_loss = meta_loss

    @property
    def num_inner_steps(self) -> int:
        """Inner steps of one estimate, all chains together."""
        return self.num_copies * self.num_tasks * self.unroll_length

    def init_state(self, source: torch.Generator) -> State:
        """Fresh chains with staggered step counters."""
        root = draw_key(source)
        horizon = self._horizons(root, range(self.num_tasks))
        boundaries = -(-horizon // self.unroll_length)
        offset = torch.rand((), generator=generator(root, "offset"))
        uniform = (torch.arange(self.num_tasks) + offset) / self.num_tasks  # stratified
        chains = self.unroll.start([(root, i) for i in range(self.num_tasks)] * self.num_copies)
        return {"chains": chains, "horizon": horizon, "step": (uniform * boundaries).long() * self.unroll_length}

    def restart(self, state: State, root: int) -> tuple[State, Tensor]:
        """Restart the tasks that are past their horizon; returns also which, ``(N,)`` bool on the CPU."""
        finished = state["step"] >= state["horizon"]
        which = finished.nonzero().flatten().tolist()
        if not which:
            return state, finished
        fresh = self.unroll.start([(root, i) for i in which] * self.num_copies)
        places = [i + copy * self.num_tasks for copy in range(self.num_copies) for i in which]
        index = torch.tensor(places, device=self.unroll.device)
        chains = tree_map(lambda old, new: old.index_copy(0, index, new), state["chains"], fresh)
        horizon = state["horizon"].clone()
        horizon[finished] = self._horizons(root, which)
        return {"chains": chains, "horizon": horizon, "step": state["step"].where(~finished, 0)}, finished

    def run(self, theta: Tree, state: State, root: int, remat: bool = False) -> tuple[Tensor, Chains]:
        """Unroll all chains by K steps.

        Args:
            theta: leaves ``(M, *shape)``.
            state: chains to go on from.
            root: key of the batches.
            remat: see ``Unroll.run``.

        Returns:
            tuple[Tensor, Chains]: the meta-loss of every chain, ``(R, N)``, and the chains K steps on.
        """
        keys = [(root, i) for i in range(self.num_tasks)]
        batches = self.unroll.batches(keys, state["chains"], self.unroll_length)
        batches = tree_map(lambda leaf: torch.cat([leaf] * self.num_copies, 1), batches)
        losses, chains = self.unroll.run(theta, state["chains"], batches, remat)
        return self._reduce(losses).unflatten(0, (self.num_copies, self.num_tasks)), chains

    def advance(self, state: State, chains: Chains, healthy: Tensor) -> State:
        """The state after an unroll; a task that is not healthy, ``(N,)`` bool, restarts at the next estimate."""
        step = (state["step"] + self.unroll_length).where(healthy.cpu(), state["horizon"])
        return {"chains": chains, "horizon": state["horizon"], "step": step}

    def _reduce(self, losses: Tensor) -> Tensor:
        """``(K, M) -> (M,)``."""
        if self.meta_loss == "mean":
            return losses.mean(0)
        return losses[-1] if self.meta_loss == "final" else losses.amin(0)

    def _horizons(self, root: int, which: Sequence[int]) -> Tensor:
        return torch.tensor([self.truncation.sample(generator(root, i, "horizon")) for i in which])
