"""Two ways to execute a program: the direct interpreter and the looped network.

An engine maps (memory, pc, most instructions) to the memory and pc after them and what was executed; it stops after an
instruction that halts. The last word of memory, address -1, is the output: ``a -1 c`` writes out the word at a.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import NamedTuple

import torch

from tasks.networks.looped_relu import SubleqNetwork
from tasks.subleq.machine import Machine


class Step(NamedTuple):
    """One executed instruction.

    Args:
        pc: where it stood.
        a: first address.
        b: second address.
        value: signed word at a before it.
        result: signed word at b after it.
        next_pc: where it went.
        halts: whether it changed nothing, so that it would go on for ever.
    """

    pc: int
    a: int
    b: int
    value: int
    result: int
    next_pc: int
    halts: bool


Engine = Callable[[list[int], int, int], tuple[list[int], int, list[Step]]]


def interpreter(machine: Machine) -> Engine:
    """The oracle, on Python integers."""
    size, mask, sign = machine.num_words, (1 << machine.word_bits) - 1, 1 << (machine.word_bits - 1)

    def advance(memory: list[int], pc: int, most: int) -> tuple[list[int], int, list[Step]]:
        memory, steps = memory.copy(), []
        while len(steps) < most and not (steps and steps[-1].halts):
            a, b, c = (memory[(pc + f) % size] % size for f in range(3))
            value, before = memory[a], memory[b]
            result = (before - value) & mask
            following = c if result == 0 or result & sign else (pc + 3) % size
            memory[b] = result
            halts = following == pc and result == before
            steps.append(
                Step(pc, a, b, machine.signed(value), machine.signed(result), following, halts)
            )
            pc = following
        return memory, pc, steps

    return advance


def network_engine(network: SubleqNetwork) -> Engine:
    """The looped network; what it did is read off its states."""
    machine = network.machine
    size = machine.num_words

    @torch.no_grad()
    def advance(memory: list[int], pc: int, most: int) -> tuple[list[int], int, list[Step]]:
        states = [network.encode(torch.tensor(memory), torch.tensor(pc))]
        while len(states) <= most and not (len(states) > 1 and torch.equal(states[-1], states[-2])):
            states.append(network(states[-1]))
        memories, pcs = machine.decode(torch.stack(states))
        places = (pcs[:-1, None] + torch.arange(3)) % size
        a, b, _ = (memories[:-1].gather(-1, places) % size).unbind(-1)
        values, results = memories[:-1].gather(-1, a[:, None]), memories[1:].gather(-1, b[:, None])
        columns = (pcs[:-1], a, b, values.squeeze(-1), results.squeeze(-1), pcs[1:])
        halts = [torch.equal(*pair) for pair in pairwise(states)]
        steps = [
            Step(at, a, b, machine.signed(value), machine.signed(result), following, halt)
            for (at, a, b, value, result, following), halt in zip(
                torch.stack(columns, -1).tolist(), halts, strict=True
            )
        ]
        return memories[-1].tolist(), int(pcs[-1]), steps

    return advance
