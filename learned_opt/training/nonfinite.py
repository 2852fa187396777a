"""The starts of unrolls that were not finite, kept for those who write recipes of them.

Legend: N tasks of this process, R chains of each, M = R N chains, B tasks that were not finite.
"""

from typing import NamedTuple

from torch import Tensor

from learned_opt.core import tree
from learned_opt.core.tree import Tree
from learned_opt.estimators.population import UnrollStart


class NonfiniteUnrolls(NamedTuple):
    """One chain of every task that was not finite: the first of its copies that was not.

    Args:
        tasks: B numbers of the tasks among those of all processes.
        copies: B numbers of the chain among those of its task.
        root: key of the draws; the batches of task n are those of key ``(root, n)``.
        tensors: theta and the chains before the unroll, flat, leaves ``(B, *shape)``.
    """

    tasks: list[int]
    copies: list[int]
    root: int
    tensors: dict[str, Tensor]


def nonfinite_unrolls(start: UnrollStart, finite: Tensor) -> NonfiniteUnrolls:
    """The rows of the chains that did not stay finite.

    Args:
        start: what all unrolls of an estimate started from.
        finite: ``(R, N)`` bool, on the CPU.
    """
    num_tasks = finite.shape[1]
    tasks: list[int] = []
    copies: list[int] = []
    chains: list[int] = []  # rows among all M
    for position in (~finite.all(0)).nonzero().flatten().tolist():
        copy = int(finite[:, position].int().argmin())
        tasks.append(start.tasks[position])
        copies.append(copy)
        chains.append(copy * num_tasks + position)

    # copies of the rows: the outer optimizer changes theta in place before anyone reads them
    everything: Tree = {"theta": start.theta, "chain": start.state["chains"]}
    tensors = {name: leaf[chains].detach() for name, leaf in tree.flatten(everything).items()}
    return NonfiniteUnrolls(tasks, copies, start.root, tensors)
