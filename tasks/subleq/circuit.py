"""The ReLU layers that are one SUBLEQ instruction: 23 as in the paper, or 9.

A bit is a wire with 0 or 1. The code p_j of address j is its bits as +1 and -1; its inner product
with the bits of an address, taken as +1 and -1 too, is L where the two agree and at most L - 2
elsewhere. So a gate ``R(bit + <p_j, address> - L)`` lets the bits of one word through.

Legend: M words, N bits of a word, L bits of an address; W bits of a sum.
"""

import torch
from torch import Tensor

from tasks.subleq.adder import Sum, add_at_once, add_in_blocks
from tasks.subleq.machine import Machine
from tasks.subleq.wires import Circuit, ReLULayer, Units, total, units, wire


def full_circuit(machine: Machine) -> list[ReLULayer]:
    """23 layers in the published groups 2 + 2 + 7 + 2 + 6 + 4.

    The largest weight is 2^ceil(sqrt N).

    Source: Liang et al. 2024, "Looped ReLU MLPs may be all you need as practical programmable
    computers" (arXiv 2410.09375) for the groups and the codes of addresses. The matrices are this
    project's own; their bits are 0 and 1, which ReLU keeps, where the paper has -1 and 1.
    """
    circuit = _start(machine)
    _read_addresses(circuit, machine)
    _read_data(circuit, machine)

    # 7: x is flipped, then y + not x + 1, which is y - x in two's complement
    circuit.layer(drop="x", flipped=units(wire(circuit["x"], -1), bias=1))
    constants = [1] + [0] * (machine.word_bits - 1)
    difference = Sum([(circuit["y"], 1), (circuit["flipped"], 1)], constants)
    add_in_blocks(circuit, "result", "y flipped", difference)

    # 2: the word at b goes, the result comes
    circuit.layer(drop="b", old=_select(circuit, machine, "b"), new=_result_at_b(circuit, machine))
    circuit.layer(drop="old new", memory=_written(circuit))

    # 6: pc + 3
    add_in_blocks(circuit, "next", "pc", _next_pc(circuit, machine))

    # 4: to c where the result is zero or negative, else to next
    circuit.layer(drop="result", zero=_is_zero(circuit), negative=_is_negative(circuit))
    circuit.layer(
        drop="zero negative", jump=units(wire(circuit["zero"]), wire(circuit["negative"]))
    )
    circuit.layer(drop="c next jump", **_choices(circuit, [circuit["jump"]]))
    circuit.layer(drop="to_c to_next", pc=units(wire(circuit["to_c"]), wire(circuit["to_next"])))
    return circuit.layers


def compact_circuit(machine: Machine) -> list[ReLULayer]:
    """The same instruction in 9 layers, with every carry in one step.

    pc + 3 is found beside the reading, and the branch beside the writing. The largest weight is
    2^(N - 1), so 32-bit floats are exact up to words of 23 bits.
    """
    circuit = _start(machine)

    # 2: read the addresses, beside pc + 3
    first, second = add_at_once("next", _next_pc(circuit, machine))
    circuit.layer(drop="pc", gate=_fetch(circuit, machine), **first)
    circuit.layer(drop="gate next_h next_carry", **_fetched(circuit), **second(circuit))

    # 2 + 2: read the data; y + not x + 1, where not x is 1 - x in every digit
    _read_data(circuit, machine)
    constants = [2] + [1] * (machine.word_bits - 1)
    difference = Sum([(circuit["y"], 1), (circuit["x"], -1)], constants)
    first, second = add_at_once("result", difference)
    circuit.layer(drop="x y", **first)
    circuit.layer(drop="result_h result_carry", **second(circuit))

    # 3: write and branch
    circuit.layer(
        drop="b result",
        old=_select(circuit, machine, "b"),
        new=_result_at_b(circuit, machine),
        zero=_is_zero(circuit),
        negative=_is_negative(circuit),
    )
    jumps = [circuit["zero"], circuit["negative"]]
    circuit.layer(
        drop="old new zero negative c next", memory=_written(circuit), **_choices(circuit, jumps)
    )
    circuit.layer(drop="to_c to_next", pc=units(wire(circuit["to_c"]), wire(circuit["to_next"])))
    return circuit.layers


def _start(machine: Machine) -> Circuit:
    """The wires of a state, in the order of ``Machine.encode``."""
    program = {"program": (machine.num_words, 3, machine.address_bits)} if machine.separate else {}
    return Circuit(
        memory=(machine.num_words, machine.word_bits), **program, pc=(machine.address_bits,)
    )


def _read_addresses(circuit: Circuit, machine: Machine) -> None:
    """2 layers: a, b and c are the instruction that pc points at."""
    circuit.layer(gate=_fetch(circuit, machine))
    circuit.layer(drop="gate", **_fetched(circuit))


def _read_data(circuit: Circuit, machine: Machine) -> None:
    """2 layers: x and y are the words at a and b."""
    circuit.layer(
        drop="a", gate_x=_select(circuit, machine, "a"), gate_y=_select(circuit, machine, "b")
    )
    circuit.layer(
        drop="gate_x gate_y",
        x=units(total(circuit["gate_x"].T)),
        y=units(total(circuit["gate_y"].T)),
    )


def _fetch(circuit: Circuit, machine: Machine) -> Units:
    """Gates ``(3, M, L)`` on the three addresses of an instruction."""
    if machine.separate:
        return _gate(circuit, circuit["program"].movedim(1, 0), "pc", _codes(machine))

    words = circuit["memory"][:, : machine.address_bits]
    codes = torch.stack(
        [_codes(machine).roll(f, 0) for f in range(3)]
    )  # p_{j-f}: word j is at pc + f
    return _gate(circuit, words, "pc", codes)


def _fetched(circuit: Circuit) -> dict[str, Units]:
    """The three addresses: of each column of gates, the one that lets bits through."""
    return {name: units(total(circuit["gate"][f].T)) for f, name in enumerate("abc")}


def _select(circuit: Circuit, machine: Machine, address: str) -> Units:
    """Gates ``(M, N)``: the word at an address, zeros elsewhere."""
    return _gate(circuit, circuit["memory"], address, _codes(machine))


def _result_at_b(circuit: Circuit, machine: Machine) -> Units:
    """Gates ``(M, N)``: the result at address b, zeros elsewhere."""
    return _gate(circuit, circuit["result"], "b", _codes(machine))


def _written(circuit: Circuit) -> Units:
    """The memory with its old word at b taken away and the new one added, ``(M, N)``."""
    return units(wire(circuit["memory"]), wire(circuit["old"], -1), wire(circuit["new"]))


def _gate(circuit: Circuit, bits: Tensor, address: str, codes: Tensor) -> Units:
    """``R(bit + <p, address> - L)`` on bits ``(..., K)``, a code p of ``(..., L)`` for each row."""
    match = circuit.products(address, 2 * codes)  # <p, 2 s - 1> = 2 <p, s> - sum p
    bias = -codes.sum(-1, keepdim=True) - codes.shape[-1]
    return units(wire(bits), wire(match[..., None]), bias=bias)


def _codes(machine: Machine) -> Tensor:
    """The codes p_j of all addresses, ``(M, L)``."""
    bits = torch.arange(machine.num_words)[:, None] >> torch.arange(machine.address_bits) & 1
    return 2 * bits.double() - 1


def _next_pc(circuit: Circuit, machine: Machine) -> Sum:
    return Sum([(circuit["pc"], 1)], [machine.stride >> k & 1 for k in range(machine.address_bits)])


def _is_zero(circuit: Circuit) -> Units:
    return units(total(circuit["result"][None], -1), bias=1)


def _is_negative(circuit: Circuit) -> Units:
    return units(wire(circuit["result"][-1:]))  # the sign bit


def _choices(circuit: Circuit, jumps: list[Tensor]) -> dict[str, Units]:
    """Bits of c where one of the wires is 1, of the next pc elsewhere."""
    return {
        "to_c": units(wire(circuit["c"]), *(wire(jump) for jump in jumps), bias=-1),
        "to_next": units(wire(circuit["next"]), *(wire(jump, -1) for jump in jumps)),
    }
