"""Two ways to execute a program: the direct interpreter and the looped network.

An engine maps (memory, pc, most instructions) to the memory and pc after them and the executed
steps; it stops after an instruction that halts. The last word of memory, address -1, is the output:
``a -1 c`` writes out the word at a.
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
    size = machine.num_words
    mask = (1 << machine.word_bits) - 1
    sign = 1 << (machine.word_bits - 1)

    def advance(memory: list[int], pc: int, most: int) -> tuple[list[int], int, list[Step]]:
        memory = memory.copy()
        steps: list[Step] = []
        while len(steps) < most:
            a, b, c = (memory[(pc + f) % size] % size for f in range(3))
            value = machine.signed(memory[a])
            before = memory[b]
            result = (before - memory[a]) & mask
            next_pc = c if result == 0 or result & sign else (pc + 3) % size

            memory[b] = result
            halts = next_pc == pc and result == before
            steps.append(Step(pc, a, b, value, machine.signed(result), next_pc, halts))
            pc = next_pc
            if halts:
                break
        return memory, pc, steps

    return advance


def network_engine(network: SubleqNetwork) -> Engine:
    """The looped network; the executed steps are read off its states."""
    machine = network.machine
    size = machine.num_words

    @torch.no_grad()
    def advance(memory: list[int], pc: int, most: int) -> tuple[list[int], int, list[Step]]:
        states = [network.encode(torch.tensor(memory), torch.tensor(pc))]
        halts: list[bool] = []
        while len(halts) < most and not any(halts[-1:]):
            states.append(network(states[-1]))
            halts.append(torch.equal(states[-1], states[-2]))
        memories, pcs = machine.decode(torch.stack(states))  # (T + 1, M), (T + 1,)

        addresses = (pcs[:-1, None] + torch.arange(3)) % size
        instructions = (memories[:-1].gather(-1, addresses) % size).tolist()  # (T, 3)
        rows = memories.tolist()
        steps = []
        for t, (before, after) in enumerate(pairwise(pcs.tolist())):
            a, b, _ = instructions[t]
            value = machine.signed(rows[t][a])
            result = machine.signed(rows[t + 1][b])
            steps.append(Step(before, a, b, value, result, after, halts[t]))
        return rows[-1], int(pcs[-1]), steps

    return advance
