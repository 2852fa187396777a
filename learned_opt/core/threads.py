"""How many threads run a compiled function: one or all, whichever is faster at the time.

A second thread gains less than twice the speed where operations are small, and costs most of it
where another program has its core. So calls are timed in turns with one thread and with all of
them, first when the function is new and then again and again, as other programs come and go. No
work is done for that: the calls are those that are made anyway.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

log = logging.getLogger(__name__)

ROUNDS = 3  # of a comparison, each with a turn of one thread and one of all
CLEAR = 1.5  # ratio of times at which the first round decides
TURN = 0.03  # least seconds of a turn: several slices of time that a busy machine gives a thread
LEAST_CALLS = 2  # of a turn; the first one wakes threads up and is not counted
PAUSE = 2.0  # least seconds between two comparisons
SHARE = 0.03  # of the time, at most, that goes into comparing


class FasterThreads:
    """Calls a function, with the number of threads that was faster lately.

    Where the user has set ``OMP_NUM_THREADS``, where torch has one thread anyway, on a GPU, and
    where the results of one thread and of all are not the same bits, it changes nothing.

    Args:
        function: takes and returns lists of tensors, and changes nothing.
        example: arguments of it.

    Attributes:
        num_threads: the number in use; None where nothing is chosen.
    """

    def __init__(self, function: Callable[..., list[Tensor]], example: Sequence[Tensor]) -> None:
        self.function = function
        self.all_threads = torch.get_num_threads()
        self.num_threads: int | None = None
        if self._may_choose(example):
            self.num_threads = self.all_threads
        self._comparison: _Comparison | None = None
        self._next_comparison = 0.0

    def __call__(self, *arguments: Any) -> list[Tensor]:
        """The same as ``function(*arguments)``."""
        if self.num_threads is None:
            return self.function(*arguments)

        start = time.perf_counter()
        if self._comparison is None and start >= self._next_comparison:
            self._comparison = _Comparison(start, self.all_threads)
        comparison = self._comparison
        with _threads(comparison.num_threads if comparison else self.num_threads):
            results = self.function(*arguments)

        if comparison is not None:
            comparison.note(start, time.perf_counter())
            if comparison.is_over:
                self._decide(comparison)
        return results

    def _decide(self, comparison: "_Comparison") -> None:
        self.num_threads = comparison.faster
        log.debug("threads: %d; %s", self.num_threads, comparison)

        end = time.perf_counter()
        self._next_comparison = end + max(PAUSE, (end - comparison.start) / SHARE)
        self._comparison = None

    def _may_choose(self, example: Sequence[Tensor]) -> bool:
        on_cpu = all(leaf.device.type == "cpu" for leaf in example)
        if not on_cpu or not is_choice():
            return False

        of_all = self.function(*example)
        with _threads(1):
            of_one = self.function(*example)
        # a run must be the same again, whoever else uses the machine
        return all(map(_equal, of_all, of_one))


def is_choice() -> bool:
    """Whether there are several threads, and their number is not the user's."""
    return torch.get_num_threads() > 1 and "OMP_NUM_THREADS" not in os.environ


def uses_all_cores() -> bool:
    """Whether there are as many threads as the machine has cores."""
    return torch.get_num_threads() == os.cpu_count()


class _Comparison:
    """Turns of calls with one thread and with all of them.

    Args:
        start: when it begins, seconds.
        all_threads: their number.
    """

    def __init__(self, start: float, all_threads: int) -> None:
        self.start = start
        self.numbers = [1, all_threads] * ROUNDS  # of the turns that are left
        self.turn_start = start
        self.calls = 0
        self.seconds: dict[int, list[float]] = {1: [], all_threads: []}

    @property
    def num_threads(self) -> int:
        """Of the turn that goes on."""
        return self.numbers[0]

    @property
    def is_over(self) -> bool:
        """Whether all turns were taken, or it is clear already."""
        if len(self.numbers) % len(self.seconds) or len(self.numbers) == 2 * ROUNDS:
            return False  # in the middle of a round
        means = [self._mean(number) for number in self.seconds]
        return not self.numbers or max(means) > CLEAR * min(means)

    @property
    def faster(self) -> int:
        """The number of threads with the shorter calls."""
        return min(self.seconds, key=self._mean)

    def note(self, start: float, end: float) -> None:
        """Count a call from ``start`` to ``end``."""
        self.calls += 1
        if self.calls > 1:
            self.seconds[self.num_threads].append(end - start)

        if self.calls >= LEAST_CALLS and end - self.turn_start >= TURN:
            del self.numbers[0]
            self.turn_start = end
            self.calls = 0

    def _mean(self, number: int) -> float:
        # no median: beside another program few calls are slow, and very slow
        return sum(self.seconds[number]) / len(self.seconds[number])

    def __str__(self) -> str:
        return ", ".join(f"{1e3 * self._mean(n):.3f} ms a call with {n}" for n in self.seconds)


@contextmanager
def _threads(number: int) -> Iterator[None]:
    """This number of threads, and afterwards as many as before; it takes less than 1 us."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _equal(left: Tensor, right: Tensor) -> bool:
    both_nan = (left != left) & (right != right)
    return bool(((left == right) | both_nan).all())
