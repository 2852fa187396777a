"""Timing calls fairly: side by side in rounds, so that what else the machine does falls on all of them alike."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from learned_opt.core.rng import generator
from learned_opt.estimators.base import GradientEstimator
from learned_opt.estimators.population import State
from learned_opt.evaluation.cost.allocator import peak_bytes
from learned_opt.inner.unroll import Unroll


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
        """Note one call."""
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
    say: Callable[[str], None],
    clock: Callable[[], float] = time.perf_counter,
) -> None:
    """Time every call ``repeats + 1`` times, in turn.

    Args:
        calls: key -> a call, given the number of the round.
        repeats: timed rounds after the first.
        times: written to as the rounds go on, so that an interrupted measurement is not lost.
        say: called with a line on what is being done.
        clock: of seconds.
    """
    for number in range(repeats + 1):
        for key, call in calls.items():
            say(f"{'first calls' if number == 0 else f'round {number} of {repeats}'}: {key}")
            start = clock()
            call(number)
            times.setdefault(key, Times()).add(clock() - start)


class OuterStep:
    """One outer step as a call: draws, unroll and estimate.

    Args:
        estimator: what is timed, at the theta that the meta-optimizer has.
        unroll: its inner loop.
    """

    def __init__(self, estimator: GradientEstimator, unroll: Unroll) -> None:
        self.estimator, self.unroll = estimator, unroll
        self.theta = {name: p.detach() for name, p in unroll.optimizer.named_parameters()}
        self.state: State | None = None

    def __call__(self, number: int) -> None:
        """Make the outer step of this number."""
        if self.state is None:
            self.state = self.estimator.init_state(self.theta, generator("bench"))
        estimate, self.state = self.estimator.estimate(
            self.theta, self.state, generator("bench", number)
        )
        estimate.meta_loss.item()  # waits for the device

    @property
    def num_chains(self) -> int:
        """Chains side by side."""
        return self.estimator.num_inner_steps // self.estimator.unroll_length

    def peak_bytes(self) -> int:
        """Measured peak of one outer step and the state that it starts from."""

        def fresh() -> None:
            state = self.estimator.init_state(self.theta, generator("bench"))
            self.estimator.estimate(self.theta, state, generator("bench", 0))

        return peak_bytes(fresh, self.unroll.device)
