"""The ReLU layers that are one SUBLEQ instruction: 23 as in the paper, or 9.

A bit is a wire with 0 or 1. The code p_j of address j is its bits as +1 and -1; its inner product with the bits of an
address, taken as +1 and -1 too, is L where the two agree and at most L - 2 elsewhere. So a gate
``R(bit + <p_j, address> - L)`` lets the bits of one word through.

Legend: M words, N bits of a word, L bits of an address; W bits of a sum.
"""

import torch
from torch import Tensor

from tasks.subleq.adder import Sum, add_at_once, add_in_blocks
from tasks.subleq.machine import Machine
from tasks.subleq.wires import Circuit, ReLULayer, Units, total, units, wire


def full_circuit(m: Machine) -> list[ReLULayer]:
    """23 layers in the published groups 2 + 2 + 7 + 2 + 6 + 4; the largest weight is 2^ceil(sqrt N).

    Source: Liang et al. 2024, "Looped ReLU MLPs may be all you need as practical programmable computers"
    (arXiv 2410.09375) for the groups and the codes of addresses. The matrices are this project's own; their bits are
    0 and 1, which ReLU keeps, where the paper has -1 and 1.
    """
    c = _start(m)
    _read_addresses(c, m)
    _read_data(c, m)
    # 7: x is flipped, then y + not x + 1
    c.layer(drop="x", flipped=units(wire(c["x"], -1), bias=1))
    add_in_blocks(
        c,
        "result",
        "y flipped",
        Sum([(c["y"], 1), (c["flipped"], 1)], [1] + [0] * (m.word_bits - 1)),
    )
    # 2: the word at b goes, the result comes
    c.layer(drop="b", old=_select(c, m, "b"), new=_place(c, m))
    c.layer(drop="old new", memory=units(wire(c["memory"]), wire(c["old"], -1), wire(c["new"])))
    # 6: pc + 3
    add_in_blocks(c, "next", "pc", _next_pc(c, m))
    # 4: to c where the result is zero or negative, else to next
    sign = c["result"][-1:]
    c.layer(drop="result", zero=_is_zero(c), negative=units(wire(sign)))
    c.layer(drop="zero negative", jump=units(wire(c["zero"]), wire(c["negative"])))
    c.layer(drop="c next jump", **_choices(c, [c["jump"]]))
    c.layer(drop="to_c to_next", pc=units(wire(c["to_c"]), wire(c["to_next"])))
    return c.layers


def compact_circuit(m: Machine) -> list[ReLULayer]:
    """The same instruction in 9 layers: pc + 3 beside the reading, the branch beside the writing, carries in one step.

    Its largest weight is 2^(N - 1), so 32-bit floats are exact up to words of 23 bits.
    """
    c = _start(m)
    first, second = add_at_once("next", _next_pc(c, m))
    c.layer(drop="pc", gate=_fetch(c, m), **first)
    c.layer(drop="gate next_h next_carry", **_fetched(c), **second(c))
    _read_data(c, m)
    first, second = add_at_once(
        "result", Sum([(c["y"], 1), (c["x"], -1)], [2] + [1] * (m.word_bits - 1))
    )
    c.layer(drop="x y", **first)
    c.layer(drop="result_h result_carry", **second(c))
    sign = c["result"][-1:]
    c.layer(
        drop="b result",
        old=_select(c, m, "b"),
        new=_place(c, m),
        zero=_is_zero(c),
        negative=units(wire(sign)),
    )
    written = units(wire(c["memory"]), wire(c["old"], -1), wire(c["new"]))
    c.layer(
        drop="old new zero negative c next",
        memory=written,
        **_choices(c, [c["zero"], c["negative"]]),
    )
    c.layer(drop="to_c to_next", pc=units(wire(c["to_c"]), wire(c["to_next"])))
    return c.layers


def _start(m: Machine) -> Circuit:
    """The wires of a state, in the order of ``Machine.encode``."""
    program = {"program": (m.num_words, 3, m.address_bits)} if m.separate else {}
    return Circuit(memory=(m.num_words, m.word_bits), **program, pc=(m.address_bits,))


def _read_addresses(c: Circuit, m: Machine) -> None:
    """2 layers: a, b and c are the instruction that pc points at."""
    c.layer(gate=_fetch(c, m))
    c.layer(drop="gate", **_fetched(c))


def _read_data(c: Circuit, m: Machine) -> None:
    """2 layers: x and y are the words at a and b."""
    c.layer(drop="a", gate_x=_select(c, m, "a"), gate_y=_select(c, m, "b"))
    c.layer(drop="gate_x gate_y", x=units(total(c["gate_x"].T)), y=units(total(c["gate_y"].T)))


def _fetch(c: Circuit, m: Machine) -> Units:
    """Gates ``(3, M, L)`` on the three addresses of an instruction."""
    if m.separate:
        return _gate(c, c["program"].movedim(1, 0), "pc", _codes(m))
    words = c["memory"][:, : m.address_bits]
    return _gate(
        c, words, "pc", torch.stack([_codes(m).roll(f, 0) for f in range(3)])
    )  # p_{j-f}: word j is at pc + f


def _fetched(c: Circuit) -> dict[str, Units]:
    return {name: units(total(c["gate"][f].T)) for f, name in enumerate("abc")}


def _select(c: Circuit, m: Machine, address: str) -> Units:
    """Gates ``(M, N)``: the word at an address, zeros elsewhere."""
    return _gate(c, c["memory"], address, _codes(m))


def _place(c: Circuit, m: Machine) -> Units:
    """Gates ``(M, N)``: the result at address b, zeros elsewhere."""
    return _gate(c, c["result"], "b", _codes(m))


def _gate(c: Circuit, bits: Tensor, address: str, codes: Tensor) -> Units:
    """``R(bit + <p, address> - L)`` on bits ``(..., K)``, with a code p of ``(..., L)`` for each row of them."""
    match = c.products(address, 2 * codes)  # <p, 2 s - 1> = 2 <p, s> - sum p
    return units(
        wire(bits), wire(match[..., None]), bias=-codes.sum(-1, keepdim=True) - codes.shape[-1]
    )


def _codes(m: Machine) -> Tensor:
    """p_j, ``(M, L)``."""
    bits = torch.arange(m.num_words)[:, None] >> torch.arange(m.address_bits) & 1
    return 2 * bits.double() - 1


def _next_pc(c: Circuit, m: Machine) -> Sum:
    return Sum([(c["pc"], 1)], [m.stride >> k & 1 for k in range(m.address_bits)])


def _is_zero(c: Circuit) -> Units:
    return units(total(c["result"][None], -1), bias=1)


def _choices(c: Circuit, jumps: list[Tensor]) -> dict[str, Units]:
    """Bits of c where one of the wires is 1, of the next pc elsewhere."""
    return {
        "to_c": units(wire(c["c"]), *(wire(jump) for jump in jumps), bias=-1),
        "to_next": units(wire(c["next"]), *(wire(jump, -1) for jump in jumps)),
    }
