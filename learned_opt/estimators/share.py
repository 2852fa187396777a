"""The share that one of several processes (ranks) has in the tasks of an estimate.

Legend: N tasks of all ranks, R chains of each.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from learned_opt.core.tree import Tree, leaves, tree_map


@dataclass(frozen=True)
class Share:
    """Which rank this is; tasks go to ranks in runs of neighbours whose sizes differ by one at most.

    Args:
        rank: number of this process.
        num_ranks: processes that share the tasks.
    """

    rank: int = 0
    num_ranks: int = 1

    def tasks(self, num_tasks: int) -> range:
        """Numbers of this rank's tasks among all.

        Raises:
            ValueError: there are more ranks than tasks.
        """
        if num_tasks < self.num_ranks:
            raise ValueError(
                f"num_tasks must be at least the number of ranks, got {num_tasks} for {self.num_ranks}."
            )
        first, last = (rank * num_tasks // self.num_ranks for rank in (self.rank, self.rank + 1))
        return range(first, last)

    def total(self, values: Tensor) -> Tensor:
        """Sum over the ranks; every rank must call it."""
        if self.num_ranks > 1:
            torch.distributed.all_reduce(values)
        return values

    def total_tree(self, values: Tree) -> Tree:
        """Leaf-wise ``total``, in one message; all leaves have one dtype."""
        if self.num_ranks == 1:
            return values
        flat = self.total(torch.cat([leaf.reshape(-1) for leaf in leaves(values)]))
        parts = iter(flat.split([leaf.numel() for leaf in leaves(values)]))
        return tree_map(lambda leaf: next(parts).reshape(leaf.shape), values)

    def gather(self, item: Any) -> list[Any]:
        """The items of all ranks on rank 0, nothing on the others; every rank must call it."""
        if self.num_ranks == 1:
            return [item]
        items = [None] * self.num_ranks if self.rank == 0 else None
        torch.distributed.gather_object(item, items)
        return items or []


def select_tasks(state: Tree, tasks: range, num_tasks: int) -> Tree:
    """The rows of some of N tasks; leaves ``(R N, ...)``, chain ``r N + n`` is copy r of task n."""

    def rows(leaf: Tensor) -> Tensor:
        return (
            leaf.unflatten(0, (-1, num_tasks))[:, tasks.start : tasks.stop]
            .flatten(0, 1)
            .contiguous()
        )

    return tree_map(rows, state)


def join_tasks(states: Sequence[Tree], sizes: Sequence[int]) -> Tree:
    """The state of all tasks from those of successive runs of tasks; the inverse of ``select_tasks``.

    Args:
        states: leaves ``(R n, ...)``.
        sizes: n of each state.
    """

    def rows(*own: Tensor) -> Tensor:
        parts = [leaf.unflatten(0, (-1, size)) for leaf, size in zip(own, sizes, strict=True)]
        return torch.cat(parts, 1).flatten(0, 1)

    return tree_map(rows, *states)
