"""Timing calls fairly: side by side in rounds.

Thus other work of the machine falls on all of them alike.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from learned_opt.core.rng import generator
from learned_opt.estimators.base import State
from learned_opt.estimators.shared_estimator import SharedEstimator
from learned_opt.evaluation.cost.allocator import peak_bytes
from learned_opt.inner.unroll import Unroll

Progress = Callable[[str], None]  # gets a line on the work that begins


def prefixed(progress: Progress, prefix: str) -> Progress:
    """The same progress, each line with a prefix."""
    return lambda text: progress(f"{prefix}, {text}")


@dataclass
class Times:
    """Seconds of one call.

    Args:
        first: of the first call, which compiles and warms up.
        later: of the calls after it.
    """

    first: float | None = None
    later: list[float] = field(default_factory=list)

    def add(self, seconds: float) -> None:
        """Note the seconds of one more call."""
        if self.first is None:
            self.first = seconds
        else:
            self.later.append(seconds)

    @property
    def typical(self) -> float | None:
        """Median of the later calls; None before there is one."""
        return median(self.later) if self.later else None


def interleave(
    calls: Mapping[Any, Callable[[int], object]],
    repeats: int,
    times: dict[Any, Times],
    progress: Progress,
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Time every call ``repeats + 1`` times, in turn.

    Args:
        calls: key -> a call, which gets the number of the round.
        repeats: timed rounds after the first.
        times: written to as the rounds go on, so that an interrupted measurement is not lost.
        progress: gets a line on every call before it.
        clock: of seconds.
    """
    for number in range(repeats + 1):
        title = f"round {number} of {repeats}" if number else "first calls"
        for key, call in calls.items():
            progress(f"{title}: {key}")
            start = clock()
            call(number)
            times.setdefault(key, Times()).add(clock() - start)


class OuterStep:
    """One outer step as a call: draws, unroll and estimate.

    Args:
        estimator: is timed, at the theta that the meta-optimizer has.
        unroll: its inner loop.
    """

    def __init__(self, estimator: SharedEstimator, unroll: Unroll) -> None:
        self.estimator = estimator
        self.unroll = unroll
        self.theta = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
        self.state: State | None = None

    def __call__(self, number: int) -> None:
        """Make the outer step of this number."""
        if self.state is None:
            self.state = self._fresh_state()
        key = generator("bench", number)
        estimate, self.state = self.estimator.estimate(self.theta, self.state, key)
        estimate.meta_loss.item()  # waits for the device

    @property
    def num_chains(self) -> int:
        """Number of chains side by side."""
        return self.estimator.num_inner_steps // self.estimator.unroll_length

    def peak_bytes(self) -> int:
        """Measured peak of one outer step and the state that it starts from."""

        def from_scratch() -> None:
            self.estimator.estimate(self.theta, self._fresh_state(), generator("bench", 0))

        return peak_bytes(from_scratch, self.unroll.device)

    def _fresh_state(self) -> State:
        return self.estimator.init_state(self.theta, generator("bench"))
