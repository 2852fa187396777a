"""Learn one instruction of a SUBLEQ machine from exact examples, or repair the network that computes it.

Legend: M words of memory, n bits of a state, B batch, T steps, S runs.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional

from tasks.base import Batch, Params, TaskParams
from tasks.network_task import NetworkTask
from tasks.networks.base import Network, check_sizes
from tasks.subleq.machine import Machine


@dataclass(frozen=True)
class Steps:
    """Examples (state, next state) ``(..., n)``, as bits.

    Args:
        machine: what computed them.
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
    machine, source, wanted = (
        Machine(num_words, word_bits),
        torch.Generator().manual_seed(0),
        num_train + num_test,
    )
    drawn = torch.randint(1 << word_bits, (2 * wanted, num_words + 1), generator=source)
    drawn[:, -1] %= num_words  # pc
    drawn = drawn.unique(dim=0)
    if len(drawn) < wanted:
        raise ValueError(
            f"a machine of {machine.state_bits} bits has too few states for {wanted:,} examples."
        )
    drawn = drawn[torch.randperm(len(drawn), generator=source)[:wanted]]

    def examples(states: Tensor) -> tuple[Tensor, Tensor]:
        memory, pc = states[:, :-1], states[:, -1]
        return machine.encode(memory, pc), machine.encode(*machine.step(memory, pc))

    memory, pc = (
        drawn[num_train : num_train + num_runs, :-1],
        drawn[num_train : num_train + num_runs, -1],
    )
    runs = [machine.encode(memory, pc)]
    for _ in range(run_length):
        memory, pc = machine.step(memory, pc)
        runs.append(machine.encode(memory, pc))
    path = torch.stack(runs)
    seen = torch.stack([(path[:t] == path[t]).all(-1).any(0) for t in range(1, len(path))])
    return Steps(machine, examples(drawn[:num_train]), examples(drawn[num_train:]), path, ~seen)


class SubleqStep(NetworkTask):
    """Mean squared error of the next state's bits.

    A step is exact when every bit, rounded, is right.

    Args:
        name: name of the task in reports.
        network: constructor ``((n,), n) -> Network``.
        data: examples, held in memory.
        batch_size: examples in a batch, drawn with replacement.
        valid_fraction: share of the training examples that is kept for ``valid``; they lie in random order.

    Raises:
        ValueError: the batch size is not positive, or the share leaves nothing to one of the splits.
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
            "fingerprint": hashlib.sha256(
                data.train[0].to(torch.uint8).numpy().tobytes()
            ).hexdigest()[:16],
        }
        inner = network((num_bits,), num_bits)
        super().__init__(name, inner, facts, data.train, data.test, batch_size, valid_fraction)
        self.runs, self.fresh = data.runs, data.fresh

    def loss(self, params: Params, batch: Batch, task: TaskParams) -> Tensor:
        """Mean squared error over the bits of the batch."""
        states, following = (bits[batch["index"]] for bits in self.train)
        return functional.mse_loss(functional_call(self.network, params, (states,)), following)

    def evaluate(self, params: Params, task: TaskParams) -> dict[str, Tensor]:
        """Share of exact steps, loss, longest correct run (instructions), and what the network knows of itself."""
        states, following = self.test
        outputs = functional_call(self.network, params, (states,))
        return {
            "accuracy": _exact(outputs, following).float().mean(),
            "test_loss": functional.mse_loss(outputs, following),
            "longest_run": self._longest_run(params),
            **self.network.figures(params),
        }

    def _longest_run(self, params: Params) -> Tensor:
        """Most exact instructions in a row from the start of a run, which ends where a state comes again.

        Bits are rounded between steps, so a run lasts as long as single steps from its true states are right.
        """
        before, after = self.runs[:-1], self.runs[1:]
        outputs = functional_call(self.network, params, (before.flatten(0, 1),)).unflatten(
            0, before.shape[:2]
        )
        return (_exact(outputs, after) & self.fresh).int().cumprod(0).sum(0).amax().float()

    def to(self, device: torch.device | str) -> Self:
        """Move network, examples and runs."""
        self.runs, self.fresh = self.runs.to(device), self.fresh.to(device)
        return super().to(device)


def _exact(outputs: Tensor, bits: Tensor) -> Tensor:
    """Whether all bits are right, ``(..., n) -> (...)``."""
    return ((outputs > 0.5) == (bits > 0.5)).all(-1)
