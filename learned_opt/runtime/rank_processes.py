"""Starts the other ranks of this machine, and ends them with this process however it ends.

Imports nothing heavy: a new process imports this first.
"""

import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any

from learned_opt.core.errors import PROGRAM, RunError
from learned_opt.runtime import current_job

GRACE = 20.0  # seconds in which this rank may notice by itself that another one is dead


@contextmanager
def followers(
    num_ranks: int, threads: int, follow: Callable[..., None], *arguments: Any
) -> Iterator[None]:
    """Run ``follow(*arguments)`` in ranks 1, 2, ... while the body runs here, in the leader.

    Args:
        num_ranks: all ranks, this one included.
        threads: of each, unless OMP_NUM_THREADS is set.
        follow: what another rank does, a function of a module.
        *arguments: can be pickled.

    Raises:
        RunError: another rank has failed.
    """
    with _variables(num_ranks, threads):
        processes = [_start(rank, follow, arguments) for rank in range(1, num_ranks)]
        finished = threading.Event()
        threading.Thread(target=_watch, args=(processes, finished), daemon=True).start()

        try:
            yield
            for process in processes:
                process.join()
        except RuntimeError as error:  # what collectives raise when another rank is gone
            if gone := _failed(processes, seconds=2.0):
                raise RunError(gone) from error
            raise
        finally:
            finished.set()
            for process in processes:
                process.kill()
                process.join()


def _start(rank: int, follow: Callable[..., None], arguments: Sequence[Any]) -> BaseProcess:
    os.environ["LOCAL_RANK"] = str(rank)
    process = multiprocessing.get_context("spawn").Process(
        target=_begin, args=(follow, *arguments), daemon=True
    )
    process.start()
    os.environ["LOCAL_RANK"] = "0"
    return process


def _begin(follow: Callable[..., None], *arguments: Any) -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None, "this runs in a process that _start has made"
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the leader hears them and tells
    follow(*arguments)


def _end_with(parent: int) -> None:
    wait([parent])
    os._exit(1)


def _watch(processes: Sequence[BaseProcess], finished: threading.Event) -> None:
    """End this process some time after another rank has failed: it may wait for ever for a sum."""
    while not (gone := _failed(processes)):
        if finished.wait(1.0):
            return
    if not finished.wait(GRACE):
        print(f"{PROGRAM}: {gone}", file=sys.stderr, flush=True)
        current_job.end({"state": "failed", "error": gone})
        os._exit(1)


def _failed(processes: Sequence[BaseProcess], seconds: float = 0.0) -> str:
    """The ranks that have ended with an error, or end so in some seconds."""
    deadline = time.monotonic() + seconds
    while True:
        sentences = []
        for rank, process in enumerate(processes, 1):
            if process.exitcode:
                sentences.append(f"rank {rank} has ended with exit code {process.exitcode}")

        if sentences or time.monotonic() >= deadline:
            return "; ".join(sentences)
        time.sleep(0.05)


@contextmanager
def _variables(num_ranks: int, threads: int) -> Iterator[None]:
    """What torch.distributed and Lightning read; the others inherit it."""
    values = {
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(_free_port()),
        "NODE_RANK": "0",
        "LOCAL_RANK": "0",
        "WORLD_SIZE": str(num_ranks),
        "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", str(threads)),
    }
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


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]
