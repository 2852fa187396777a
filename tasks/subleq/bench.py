"""Cost of an instruction against the size of the machine: structured, and with dense matrices."""

import time
from collections.abc import Callable
from math import log, log2

import torch
from torch import Tensor

from tasks.networks.looped_relu import SubleqNetwork

REPEATS = 5
SECONDS = 0.3  # of one timing
LARGEST_DENSE = 1_100  # state bits; the matrices of more do not fit a small machine
FIT_FROM = 1_000  # state bits from which the exponent is fitted; below, calls cost more than work
NUM_MACHINES = 1_000  # of the batch


def measure(word_bits: int, largest: int) -> None:
    """Print a table for machines of 16 words and more, the fitted exponents, and a batch.

    Args:
        word_bits: N.
        largest: words of the largest machine, a power of two.
    """
    print(
        f"{'words':>6} {'n':>8} {'layers':>6} {'nonzeros':>10} {'/ n log2 n':>10} {'structured/s':>12} {'dense/s':>9}"
    )
    times: dict[str, list[tuple[int, float]]] = {"structured": [], "dense": []}
    num_words = 16
    while num_words <= largest:
        network = SubleqNetwork(num_words, word_bits)
        n, state = network.machine.state_bits, _states(network, 1)
        runs: dict[str, Callable[[Tensor], Tensor]] = {"structured": network}
        if n <= LARGEST_DENSE:
            runs["dense"] = _dense(network)
        seconds = _interleaved(runs, state)
        for name, value in seconds.items():
            times[name].append((n, value))
        weights = network.num_weights()
        rates = [
            f"{1 / seconds[name]:,.0f}" if name in seconds else "-"
            for name in ("structured", "dense")
        ]
        print(
            f"{num_words:>6} {n:>8,} {len(network.layers):>6} {weights:>10,} {weights / (n * log2(n)):>10.2f} "
            f"{rates[0]:>12} {rates[1]:>9}"
        )
        num_words *= 4
    for name, start in (("structured", FIT_FROM), ("dense", 0)):
        points = [(n, value) for n, value in times[name] if n >= start]
        if len(points) > 1:
            print(
                f"{name}: cost ~ n^{_exponent(points):.2f} over n = {points[0][0]:,} to {points[-1][0]:,}"
            )
    network = SubleqNetwork(64, word_bits)
    seconds = _interleaved({"batch": network}, _states(network, NUM_MACHINES))["batch"]
    print(
        f"{NUM_MACHINES:,} machines of 64 words at once: {NUM_MACHINES / seconds:,.0f} instructions/s"
    )


def _dense(network: SubleqNetwork) -> Callable[[Tensor], Tensor]:
    layers = network.dense()

    def step(state: Tensor) -> Tensor:
        for weight, bias in layers:
            state = torch.nn.functional.linear(state, weight, bias).relu()
        return state

    return step


def _states(network: SubleqNetwork, num: int) -> Tensor:
    machine, source = network.machine, torch.Generator().manual_seed(0)
    memory = torch.randint(1 << machine.word_bits, (num, machine.num_words), generator=source)
    return network.encode(memory, torch.randint(machine.num_words, (num,), generator=source))


@torch.no_grad()
def _interleaved(runs: dict[str, Callable[[Tensor], Tensor]], state: Tensor) -> dict[str, float]:
    """Median seconds of a call, the candidates in turn."""
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(REPEATS + 1):  # the first round warms up
        for name, function in runs.items():
            calls, start = 0, time.perf_counter()
            while time.perf_counter() - start < SECONDS:
                function(state)
                calls += 1
            seconds[name].append((time.perf_counter() - start) / calls)
    return {name: sorted(values[1:])[REPEATS // 2] for name, values in seconds.items()}


def _exponent(points: list[tuple[int, float]]) -> float:
    """Slope of log cost against log n, least squares."""
    x, y = (
        torch.tensor([log(point[i]) for point in points], dtype=torch.float64) for i in range(2)
    )
    x = x - x.mean()
    return float((x * y).sum() / (x * x).sum())
