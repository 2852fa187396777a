"""How many threads run a compiled function."""

import itertools
import math
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import pytest
import torch
from torch import Tensor

from learned_opt import meta_train
from learned_opt.core import threads
from learned_opt.core.threads import FasterThreads
from learned_opt.estimators.pes import PES
from learned_opt.optimizers.unf import UNFOptimizer
from learned_opt.unf.layers import PointwiseUNFLinear
from tasks.data.embedded import digits
from tasks.networks.mlp import MLP
from tasks.supervised import Classification

ALL = 2


@pytest.fixture(autouse=True)
def several_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(threads, "TURN", 0.004)
    monkeypatch.setattr(threads, "PAUSE", 0.01)
    monkeypatch.setattr(threads, "SHARE", 1.0)

    before = torch.get_num_threads()
    torch.set_num_threads(ALL)
    yield
    torch.set_num_threads(before)


class Machine:
    """On which a call takes as long as one says, by the number of threads."""

    def __init__(self) -> None:
        self.seconds = {1: 0.001, ALL: 0.001}
        self.calls = {1: 0, ALL: 0}

    def __call__(self, value: Tensor) -> list[Tensor]:
        number = torch.get_num_threads()
        self.calls[number] += 1
        time.sleep(self.seconds[number])
        return [2 * value]


def call_for(seconds: float, function: Callable[..., list[Tensor]]) -> None:
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        assert function(torch.ones(2))[0].tolist() == [2, 2]


def test_the_faster_number_is_used_and_follows_the_machine() -> None:
    machine = Machine()
    faster = FasterThreads(machine, [torch.ones(2)])

    machine.seconds = {1: 0.001, ALL: 0.004}  # another program has a core
    call_for(0.2, faster)
    assert faster.num_threads == 1

    machine.seconds = {1: 0.004, ALL: 0.001}  # it has ended
    call_for(0.2, faster)
    assert faster.num_threads == ALL
    assert torch.get_num_threads() == ALL  # whatever ran the calls


def test_little_time_goes_into_comparing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "SHARE", 0.1)
    machine = Machine()
    faster = FasterThreads(machine, [torch.ones(2)])
    machine.seconds = {1: 0.001, ALL: 0.002}
    call_for(0.5, faster)
    machine.calls = {1: 0, ALL: 0}
    call_for(0.5, faster)
    assert machine.calls[ALL] < 0.2 * machine.calls[1]


def test_omp_num_threads_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    machine = Machine()
    faster = FasterThreads(machine, [torch.ones(2)])
    call_for(0.05, faster)
    assert faster.num_threads is None
    assert machine.calls[1] == 0


def test_nothing_is_chosen_where_results_differ() -> None:
    def depends_on_threads(value: Tensor) -> list[Tensor]:
        return [value * torch.get_num_threads()]

    assert FasterThreads(depends_on_threads, [torch.ones(2)]).num_threads is None


def test_values_that_are_not_finite_are_the_same() -> None:
    def overflows(value: Tensor) -> list[Tensor]:
        return [value / 0, value.long(), value > 0]

    assert FasterThreads(overflows, [torch.zeros(2)]).num_threads == ALL


@pytest.mark.slow
def test_theta_is_the_same_whenever_the_number_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    task = Classification("digits", MLP, digits(), batch_size=16)
    head = partial(PointwiseUNFLinear, init="zero")
    optimizer = partial(UNFOptimizer, channels=4, head=head)
    pes = partial(PES, num_tasks=4, unroll_length=10, sigma=0.03)

    def trained() -> dict[str, Tensor]:
        return meta_train(task, optimizer, pes, steps=3, horizon=20, progress=False).theta

    monkeypatch.setenv("OMP_NUM_THREADS", str(ALL))
    fixed = trained()

    monkeypatch.delenv("OMP_NUM_THREADS")
    monkeypatch.setattr(threads, "TURN", 0.0)
    monkeypatch.setattr(threads, "PAUSE", 0.0)
    monkeypatch.setattr(threads, "SHARE", math.inf)
    monkeypatch.setattr(threads, "CLEAR", math.inf)
    used: list[int] = []
    run_with = threads._threads

    def noted(number: int) -> AbstractContextManager[None]:
        used.append(number)
        return run_with(number)

    monkeypatch.setattr(threads, "_threads", noted)
    changing = trained()

    changes = sum(left != right for left, right in itertools.pairwise(used))
    assert changes > 10
    for name, leaf in fixed.items():
        assert torch.equal(leaf, changing[name]), name
