"""Ranks as threads of one process, for tests of what ranks share.

One thread runs at a time, for the function transforms of torch are not made for several.
"""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import torch

from learned_opt.estimators.share import Share

TURN = threading.Lock()


@dataclass(frozen=True)
class ThreadShare(Share):
    """Sums over threads that meet at a barrier."""

    barrier: threading.Barrier = field(default_factory=lambda: threading.Barrier(1))
    slots: tuple[list, ...] = ([],)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        self.slots[self.rank][:] = [values]
        self.meet()
        total = torch.stack([slot[0] for slot in self.slots]).sum(0)
        self.meet()
        return total

    def meet(self) -> None:
        """Let the others run until all are here."""
        TURN.release()
        try:
            self.barrier.wait(timeout=60)
        finally:
            TURN.acquire()


def on_ranks(count: int, work: Callable[[Share], Any]) -> list[Any]:
    """What ``work`` returns on every rank; the first error ends all."""
    barrier = threading.Barrier(count)
    slots = tuple([] for _ in range(count))

    def rank(number: int) -> Any:
        try:
            with TURN:
                return work(ThreadShare(number, count, barrier, slots))
        except BaseException:
            barrier.abort()
            raise

    with ThreadPoolExecutor(count) as pool:
        futures = [pool.submit(rank, number) for number in range(count)]
    errors = [future.exception() for future in futures]
    for error in errors:
        if error and not isinstance(error, threading.BrokenBarrierError):
            raise error
    return [future.result() for future in futures]
