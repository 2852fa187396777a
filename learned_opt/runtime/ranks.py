"""The processes of a run, called ranks, and which one this is.

Lightning's own launcher starts the command line again, which under multirun is a second sweep; here
the other ranks get the composed config instead. Under srun, torchrun and the like, all ranks are
there already.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from learned_opt.core.errors import UsageError
from learned_opt.runtime.rank_processes import followers


@dataclass(frozen=True)
class World:
    """The ranks of a run.

    Args:
        num_ranks: of all machines.
        num_local: of this machine.
        rank: of this process among all.
        local_rank: of this process among those of its machine.
        complete: whether all ranks have been started.
    """

    num_ranks: int = 1
    num_local: int = 1
    rank: int = 0
    local_rank: int = 0
    complete: bool = True

    @property
    def is_leader(self) -> bool:
        """Whether this rank talks to people and writes the files."""
        return self.rank == 0


ALONE = World()


def world(devices: int | str, num_nodes: int = 1, device: str = "auto") -> World:
    """The ranks that a run asks for, and which of them this process is.

    Args:
        devices: ranks on each machine, or ``auto``: one for each GPU.
        num_nodes: machines.
        device: ``auto``, ``cpu`` or ``cuda``; on the CPU ``auto`` devices are one.

    Raises:
        UsageError: a number is not positive, or there are several machines and nobody has started
            the ranks.

    >>> world(1, device="cpu").is_leader
    True
    """
    num_local = devices
    if devices == "auto":
        num_local = max(1, torch.cuda.device_count() if device != "cpu" else 0)

    if not isinstance(num_local, int) or num_local < 1:
        raise UsageError(f"trainer.devices must be auto or at least 1, got {devices}.")

    num_ranks = num_local * num_nodes
    if num_ranks == 1:
        return ALONE

    if by_srun():
        rank = int(os.environ["SLURM_PROCID"])
        return World(num_ranks, num_local, rank, int(os.environ["SLURM_LOCALID"]))
    if "LOCAL_RANK" in os.environ:
        local_rank = int(os.environ["LOCAL_RANK"])
        rank = int(os.environ.get("RANK", local_rank))
        return World(num_ranks, num_local, rank, local_rank)
    if num_nodes > 1:
        raise UsageError(
            f"trainer.num_nodes is {num_nodes}, but this process was started alone; start the "
            "ranks with hydra/launcher=slurm, srun or torchrun."
        )

    return World(num_ranks, num_local, complete=False)


def by_srun() -> bool:
    """Whether srun has started this process together with others."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def use_own_gpu(world: World) -> None:
    """Make ``cuda`` mean the GPU of this rank."""
    if world.num_local > 1 and torch.cuda.is_available():
        torch.cuda.set_device(world.local_rank)


@contextmanager
def others(world: World, follow: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Have ``follow(*arguments)`` run in the other ranks while the body runs.

    Does nothing where they are there already.
    """
    if world.complete:
        yield
        return

    before = torch.get_num_threads()
    threads = max(1, len(os.sched_getaffinity(0)) // world.num_local)
    torch.set_num_threads(min(before, threads))

    try:
        with followers(world.num_ranks, threads, follow, *arguments):
            yield
    finally:
        torch.set_num_threads(before)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # a next run of this process has other ranks
