"""The share that one of several processes (ranks) has in the tasks of an estimate.

Legend: N tasks of all ranks (pairs in evolution strategies), R chains of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learned_opt.core.tree import Tree, leaves, tree_map


@dataclass(frozen=True)
class Share:
    """Which rank this is; each rank has a run of neighbouring tasks.

    The sizes of these runs differ by one at most.

    Args:
        rank: number of this process.
        num_ranks: processes that share the tasks.
    """

    rank: int = 0
    num_ranks: int = 1

    @property
    def is_leader(self) -> bool:
        """Whether this is the rank that writes for all of them."""
        return self.rank == 0

    def tasks(self, num_tasks: int) -> range:
        """Numbers of this rank's tasks among all.

        Raises:
            ValueError: there are more ranks than tasks.
        """
        if num_tasks < self.num_ranks:
            raise ValueError(
                "num_tasks must be at least the number of ranks, "
                f"got {num_tasks} for {self.num_ranks}."
            )

        first = self.rank * num_tasks // self.num_ranks
        end = (self.rank + 1) * num_tasks // self.num_ranks
        return range(first, end)

    def total(self, values: Tensor) -> Tensor:
        """Sum over the ranks; every rank must call it."""
        if self.num_ranks > 1:
            torch.distributed.all_reduce(values)
        return values

    def total_tree(self, values: Tree) -> Tree:
        """Sum of every leaf over the ranks, in one message; all leaves have one dtype."""
        if self.num_ranks == 1:
            return values

        parts = leaves(values)
        flat = self.total(torch.cat([leaf.reshape(-1) for leaf in parts]))
        sums = iter(flat.split([leaf.numel() for leaf in parts]))
        return tree_map(lambda leaf: next(sums).reshape(leaf.shape), values)

    def gather(self, item: Any) -> list[Any]:
        """The items of all ranks on the leader, nothing on the others; every rank must call it."""
        if self.num_ranks == 1:
            return [item]

        items = [None] * self.num_ranks if self.is_leader else None
        torch.distributed.gather_object(item, items)
        return items or []


def select_tasks(state: Tree, tasks: range, num_tasks: int) -> Tree:
    """The rows of some of N tasks.

    Args:
        state: leaves ``(R N, ...)``, where chain ``r N + n`` is copy r of task n.
        tasks: numbers of the tasks, neighbours.
        num_tasks: N.

    Returns:
        Tree: leaves ``(R n, ...)`` for n tasks.
    """

    def rows(leaf: Tensor) -> Tensor:
        by_task = leaf.unflatten(0, (-1, num_tasks))  # (R, N, ...)
        chosen = by_task[:, tasks.start : tasks.stop]
        return chosen.flatten(0, 1).contiguous()

    return tree_map(rows, state)


def join_tasks(states: Sequence[Tree], sizes: Sequence[int]) -> Tree:
    """The state of all tasks from those of successive runs of tasks; undoes ``select_tasks``.

    Args:
        states: leaves ``(R n, ...)``.
        sizes: n of each state.
    """

    def rows(*parts: Tensor) -> Tensor:
        by_task = []
        for leaf, size in zip(parts, sizes, strict=True):
            by_task.append(leaf.unflatten(0, (-1, size)))  # (R, n, ...)
        return torch.cat(by_task, 1).flatten(0, 1)

    return tree_map(rows, *states)
