"""Cost of an instruction against the size of the machine: structured, and with dense matrices."""

import time
from collections.abc import Callable
from math import log, log2

import torch
from torch import Tensor

from tasks.networks.looped_relu import SubleqNetwork
from tasks.subleq.machine import Machine

REPEATS = 5
SECONDS = 0.3  # of one timing
SMALLEST = 16  # words of the first machine
GROWTH = 4  # words of a machine over those of the one before
LARGEST_DENSE = 1_100  # state bits; the matrices of more do not fit a small machine
FIT_FROM = {"structured": 1_000, "dense": 0}  # state bits; below, calls cost more than work
NUM_MACHINES = 1_000  # of the batch

Points = list[tuple[int, float]]  # state bits, seconds of an instruction


def measure(word_bits: int, largest: int) -> None:
    """Print a table for machines of 16 words and more, the fitted exponents, and a batch.

    Args:
        word_bits: N.
        largest: words of the largest machine, a power of two.

    Raises:
        ValueError: such a machine is impossible.
    """
    Machine(largest, word_bits)  # refuses impossible sizes before anything is printed

    print(
        f"{'words':>6} {'n':>8} {'layers':>6} {'nonzeros':>10} {'/ n log2 n':>10} "
        f"{'structured/s':>12} {'dense/s':>9}"
    )
    points: dict[str, Points] = {name: [] for name in FIT_FROM}
    num_words = SMALLEST
    while num_words <= largest:
        network = SubleqNetwork(num_words, word_bits)
        seconds = _time_machine(network)
        print(_table_row(network, seconds))
        for name, value in seconds.items():
            points[name].append((network.machine.state_bits, value))
        num_words *= GROWTH

    for name, start in FIT_FROM.items():
        _print_exponent(name, [(n, value) for n, value in points[name] if n >= start])

    network = SubleqNetwork(64, word_bits)
    seconds = _interleaved({"batch": network}, _states(network, NUM_MACHINES))["batch"]
    print(
        f"{NUM_MACHINES:,} machines of 64 words at once: {NUM_MACHINES / seconds:,.0f} "
        "instructions/s"
    )


def _time_machine(network: SubleqNetwork) -> dict[str, float]:
    """Seconds of an instruction: structured, and dense where that fits."""
    candidates: dict[str, Callable[[Tensor], Tensor]] = {"structured": network}
    if network.machine.state_bits <= LARGEST_DENSE:
        candidates["dense"] = _dense(network)
    return _interleaved(candidates, _states(network, 1))


def _table_row(network: SubleqNetwork, seconds: dict[str, float]) -> str:
    n = network.machine.state_bits
    weights = network.num_weights()
    rates = {name: f"{1 / value:,.0f}" for name, value in seconds.items()}
    return (
        f"{network.machine.num_words:>6} {n:>8,} {len(network.layers):>6} {weights:>10,} "
        f"{weights / (n * log2(n)):>10.2f} {rates['structured']:>12} {rates.get('dense', '-'):>9}"
    )


def _print_exponent(name: str, points: Points) -> None:
    if len(points) < 2:
        return
    first, _ = points[0]
    last, _ = points[-1]
    print(f"{name}: cost ~ n^{_exponent(points):.2f} over n = {first:,} to {last:,}")


def _dense(network: SubleqNetwork) -> Callable[[Tensor], Tensor]:
    layers = network.dense()

    def step(state: Tensor) -> Tensor:
        for weight, bias in layers:
            state = torch.nn.functional.linear(state, weight, bias).relu()
        return state

    return step


def _states(network: SubleqNetwork, num: int) -> Tensor:
    """Random states of machines, ``(num, n)``."""
    machine = network.machine
    source = torch.Generator().manual_seed(0)
    memory = torch.randint(1 << machine.word_bits, (num, machine.num_words), generator=source)
    pc = torch.randint(machine.num_words, (num,), generator=source)
    return network.encode(memory, pc)


@torch.no_grad()
def _interleaved(
    candidates: dict[str, Callable[[Tensor], Tensor]], state: Tensor
) -> dict[str, float]:
    """Median seconds of a call, the candidates in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(REPEATS + 1):
        for name, function in candidates.items():
            calls = 0
            start = time.perf_counter()
            while time.perf_counter() - start < SECONDS:
                function(state)
                calls += 1
            seconds[name].append((time.perf_counter() - start) / calls)

    # the first round warms up
    return {name: sorted(values[1:])[REPEATS // 2] for name, values in seconds.items()}


def _exponent(points: Points) -> float:
    """Slope of log cost against log n, least squares."""
    x = torch.tensor([log(n) for n, _ in points], dtype=torch.float64)
    y = torch.tensor([log(seconds) for _, seconds in points], dtype=torch.float64)
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())
