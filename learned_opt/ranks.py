"""The processes of a run, called ranks: which one this is, and how one starts the others of its machine.

Lightning's own launcher starts the command line again, which under multirun is a second sweep; here the other ranks
get the composed config instead. Under srun, torchrun and the like, all ranks are there already.
"""

import multiprocessing
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

import torch
from omegaconf import DictConfig

from learned_opt.cli import PROGRAM, RunError, UsageError

GRACE = 20.0  # seconds in which this rank may notice by itself that another one is dead


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
    """Run ``follow(*arguments)`` in the other ranks of this machine while the body runs here, as rank 0.

    The others end with the body, and with this process however it ends.

    Args:
        place: from ``world``; where all ranks are there already, nothing is started.
        follow: what another rank does, a function of a module.
        *arguments: can be pickled.

    Raises:
        RunError: another rank has failed.
    """
    if place.complete:
        yield
        return
    threads = max(1, len(os.sched_getaffinity(0)) // place.num_local)
    with _variables(place, threads), _threads(threads):
        processes = [_start(rank, follow, arguments) for rank in range(1, place.num_ranks)]
        finished = threading.Event()
        threading.Thread(target=_watch, args=(processes, finished), daemon=True).start()
        try:
            yield
            for process in processes:
                process.join()
        except RuntimeError as error:  # what collectives raise when another rank is gone
            wait([process.sentinel for process in processes], timeout=1)
            if gone := _failed(processes):
                raise RunError(gone) from error
            raise
        finally:
            finished.set()
            for process in processes:
                process.kill()
                process.join()
            if torch.distributed.is_initialized():
                torch.distributed.destroy_process_group()  # a next run of this process has other ranks


def _start(rank: int, follow: Callable[..., None], arguments: tuple[Any, ...]) -> BaseProcess:
    os.environ["LOCAL_RANK"] = str(rank)
    process = multiprocessing.get_context("spawn").Process(target=_begin, args=(follow, *arguments), daemon=True)
    process.start()
    os.environ["LOCAL_RANK"] = "0"
    return process


def _begin(follow: Callable[..., None], *arguments: Any) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a process that _start has made"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # rank 0 hears Ctrl-C and tells
    follow(*arguments)


def _end_with(parent: int) -> None:
    wait([parent])
    os._exit(1)


def _watch(processes: list[BaseProcess], finished: threading.Event) -> None:
    """End this process some time after another rank has failed: it may wait for ever for a sum."""
    wait([process.sentinel for process in processes])
    while not _failed(processes):
        if finished.wait(1.0):
            return
    if not finished.wait(GRACE):
        print(f"{PROGRAM}: {_failed(processes)}", flush=True)
        os._exit(1)


def _failed(processes: list[BaseProcess]) -> str:
    codes = {rank: process.exitcode for rank, process in enumerate(processes, 1) if process.exitcode}
    return "; ".join(f"rank {rank} has ended with exit code {code}" for rank, code in codes.items())


@contextmanager
def _variables(place: World, threads: int) -> Iterator[None]:
    """What torch.distributed and Lightning read; children inherit it."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "NODE_RANK": "0", "LOCAL_RANK": "0"}
    threads_each = os.environ.get("OMP_NUM_THREADS", str(threads))
    values = {**address, "WORLD_SIZE": str(place.num_ranks), "OMP_NUM_THREADS": threads_each}
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(min(before, count))
    try:
        yield
    finally:
        torch.set_num_threads(before)
