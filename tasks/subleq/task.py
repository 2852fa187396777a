"""Learn one instruction of a SUBLEQ machine from exact examples, or repair a network that knows it.

Legend: M words of memory, n bits of a state, B batch, T steps, S runs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional
from typing_extensions import override

from tasks.base import Batch, Params, TaskParams
from tasks.data.fingerprint import fingerprint_of
from tasks.network_task import NetworkTask
from tasks.networks.base import Network, check_sizes
from tasks.subleq.machine import Machine


@dataclass(frozen=True)
class Steps:
    """Examples (state, next state) ``(..., n)``, as bits.

    Args:
        machine: computed them.
        train: states and next states ``(num, n)``.
        test: the same of states that ``train`` has not.
        runs: ``(T + 1, S, n)``, whole runs that start at states of ``test``.
        fresh: ``(T, S)``, which states of the runs are followed by one that the run has not seen.
    """

    machine: Machine
    train: tuple[Tensor, Tensor]
    test: tuple[Tensor, Tensor]
    runs: Tensor
    fresh: Tensor


def subleq_steps(
    num_words: int,
    word_bits: int,
    num_train: int = 32_768,
    num_test: int = 2_048,
    num_runs: int = 64,
    run_length: int = 64,
) -> Steps:
    """Random memories and their next states; the same ones at every call.

    Args:
        num_words: words of memory, a power of two.
        word_bits: bits of a word.
        num_train: examples to train on.
        num_test: held-out examples.
        num_runs: runs for the longest correct run.
        run_length: instructions of a run.

    Raises:
        ValueError: the machine is impossible, or has too few states for so many examples.
    """
    check_sizes(num_train=num_train, num_test=num_test, num_runs=num_runs, run_length=run_length)
    machine = Machine(num_words, word_bits)

    states = _random_states(machine, num_train + num_test)
    held_out = states[num_train:]
    runs = _runs(machine, held_out[:num_runs], run_length)
    return Steps(
        machine,
        train=_examples(machine, states[:num_train]),
        test=_examples(machine, held_out),
        runs=runs,
        fresh=~_seen_before(runs),
    )


def _random_states(machine: Machine, count: int) -> Tensor:
    """Different memories, each with a pc behind it, ``(count, M + 1)``."""
    source = torch.Generator().manual_seed(0)

    # twice as many as are needed, since some come twice
    shape = (2 * count, machine.num_words + 1)
    drawn = torch.randint(1 << machine.word_bits, shape, generator=source)
    drawn[:, -1] %= machine.num_words  # pc
    drawn = drawn.unique(dim=0)
    if len(drawn) < count:
        raise ValueError(
            f"a machine of {machine.state_bits} bits has too few states for {count:,} examples."
        )

    order = torch.randperm(len(drawn), generator=source)  # unique sorts
    return drawn[order[:count]]


def _examples(machine: Machine, states: Tensor) -> tuple[Tensor, Tensor]:
    """Bits of states ``(num, M + 1)`` and of their next states, ``(num, n)`` each."""
    memory = states[:, :-1]
    pc = states[:, -1]
    return machine.encode(memory, pc), machine.encode(*machine.step(memory, pc))


def _runs(machine: Machine, starts: Tensor, length: int) -> Tensor:
    """Bits of the states of whole runs, ``(T + 1, S, n)``, from starts ``(S, M + 1)``."""
    memory = starts[:, :-1]
    pc = starts[:, -1]

    states = [machine.encode(memory, pc)]
    for _ in range(length):
        memory, pc = machine.step(memory, pc)
        states.append(machine.encode(memory, pc))
    return torch.stack(states)


def _seen_before(runs: Tensor) -> Tensor:
    """Whether the state after each step came earlier in its run, ``(T, S)``."""
    seen = []
    for t in range(1, len(runs)):
        equal = (runs[:t] == runs[t]).all(-1)  # (t, S)
        seen.append(equal.any(0))
    return torch.stack(seen)


class SubleqStep(NetworkTask):
    """Mean squared error of the next state's bits.

    A step is exact when every bit, rounded, is right.

    Args:
        name: name of the task in reports.
        network: constructor ``((n,), n) -> Network``.
        data: examples, held in memory.
        batch_size: examples in a batch, drawn with replacement.
        valid_fraction: share of the training examples that is kept for ``valid``; they lie in
            random order.

    Raises:
        ValueError: the batch size is not positive, or the share leaves nothing to one of the
            splits.
    """

    def __init__(
        self,
        name: str,
        network: Callable[..., Network],
        data: Steps,
        batch_size: int = 128,
        valid_fraction: float = 0.0,
    ) -> None:
        num_bits = data.machine.state_bits
        facts = {
            "num_words": data.machine.num_words,
            "word_bits": data.machine.word_bits,
            "fingerprint": fingerprint_of([data.train[0].to(torch.uint8)]),
        }

        inner = network((num_bits,), num_bits)
        super().__init__(name, inner, facts, data.train, data.test, batch_size, valid_fraction)
        self.runs = data.runs
        self.fresh = data.fresh

    @override
    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        states, following = (bits[batch["index"]] for bits in self.train)
        outputs = functional_call(self.network, params, (states,))  # (B, n)
        return functional.mse_loss(outputs, following)

    @override
    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        states, following = self.test
        outputs = functional_call(self.network, params, (states,))
        return {
            "accuracy": _exact(outputs, following).float().mean(),
            "test_loss": functional.mse_loss(outputs, following),
            "longest_run": self._longest_run(params),
            **self.network.figures(params),
        }

    @override
    def to(self, device: torch.device | str) -> Self:
        self.runs = self.runs.to(device)
        self.fresh = self.fresh.to(device)
        return super().to(device)

    def _longest_run(self, params: Params) -> Tensor:
        """Most exact instructions in a row from the start of a run.

        A run ends where a state comes again. Bits are rounded between steps, so it lasts as long
        as single steps from its true states are right.
        """
        before = self.runs[:-1]
        after = self.runs[1:]
        outputs = functional_call(self.network, params, (before.flatten(0, 1),))
        exact = _exact(outputs.unflatten(0, before.shape[:2]), after)  # (T, S)
        lengths = (exact & self.fresh).int().cumprod(0).sum(0)
        return lengths.amax().float()


def _exact(outputs: Tensor, bits: Tensor) -> Tensor:
    """Whether all bits are right, ``(..., n) -> (...)``."""
    return ((outputs > 0.5) == (bits > 0.5)).all(-1)
