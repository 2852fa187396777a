"""The processes of a run, called ranks, and which one this is.

Lightning's own launcher starts the command line again, which under multirun is a second sweep; here the other ranks
get the composed config instead. Under srun, torchrun and the like, all ranks are there already.
"""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig

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
    def leads(self) -> bool:
        """Whether this rank talks to people and writes the files."""
        return self.rank == 0


ALONE = World()


def world(cfg: DictConfig) -> World:
    """The ranks that a composed config asks for.

    Raises:
        UsageError: the number is not positive, or there are several machines and nobody has started the ranks.
    """
    trainer, gpus = cfg.trainer, torch.cuda.device_count() if cfg.device != "cpu" else 0
    devices = max(1, gpus) if trainer.devices == "auto" else trainer.devices
    if not isinstance(devices, int) or devices < 1:
        raise UsageError(f"trainer.devices must be auto or at least 1, got {devices}.")
    num_ranks, environment = devices * trainer.num_nodes, os.environ
    if num_ranks == 1:
        return ALONE
    if by_srun():
        place = int(environment["SLURM_PROCID"]), int(environment["SLURM_LOCALID"])
    elif "LOCAL_RANK" in environment:
        local_rank = int(environment["LOCAL_RANK"])
        place = int(environment.get("RANK", local_rank)), local_rank
    elif trainer.num_nodes > 1:
        raise UsageError(
            f"trainer.num_nodes is {trainer.num_nodes}, but this process was started alone; start the ranks with "
            "hydra/launcher=slurm, srun or torchrun."
        )
    else:
        return World(num_ranks, devices, complete=False)
    return World(num_ranks, devices, *place)


def by_srun() -> bool:
    """Whether srun has started this process together with others."""
    return int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1


def use_own_gpu(place: World) -> None:
    """Make ``cuda`` mean the GPU of this rank."""
    if place.num_local > 1 and torch.cuda.is_available():
        torch.cuda.set_device(place.local_rank)


@contextmanager
def others(place: World, follow: Callable[..., None], *arguments: Any) -> Iterator[None]:
    """Have ``follow(*arguments)`` run in the other ranks while the body runs; nothing where they are there already."""
    if place.complete:
        yield
        return
    before = torch.get_num_threads()
    threads = max(1, len(os.sched_getaffinity(0)) // place.num_local)
    torch.set_num_threads(min(before, threads))
    try:
        with followers(place.num_ranks, threads, follow, *arguments):
            yield
    finally:
        torch.set_num_threads(before)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()  # a next run of this process has other ranks
