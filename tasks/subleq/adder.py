"""Addition in ReLU layers: carries are thresholds, ``[t >= T] = R(t - T + 1) - R(t - T)``.

That holds for whole numbers t.

Legend: W bits of the sum; h_k the digit of bit k before carries (0 to 3), c_k the carry into bit k;
B = ceil(sqrt W) bits of a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt
from typing import NamedTuple

import torch
from torch import Tensor

from tasks.subleq.wires import Circuit, Units, rows, units, wire

Row = dict[int, float]  # wire -> weight
Unit = tuple[Row, int]  # weights of the wires that it reads, and its bias


class Block(NamedTuple):
    """Bits of the sum whose carries are found together: from ``start`` to before ``stop``."""

    start: int
    stop: int


@dataclass(frozen=True)
class Sum:
    """An addition: digit h_k = sum of weight * wire + constant.

    Args:
        operands: wires ``(W,)`` with their weight, 1 or -1.
        constants: W constants.
    """

    operands: Sequence[tuple[Tensor, int]]
    constants: Sequence[int]

    def digits(self) -> Units:
        """The digits h before carries, ``(W,)``."""
        terms = [wire(wires, weight) for wires, weight in self.operands]
        return units(*terms, bias=torch.tensor(self.constants))

    def value(self, start: int, stop: int) -> Unit:
        """``sum_{start <= k < stop} 2^(k - start) h_k`` as weights of wires and a constant."""
        row: Row = {}
        for wires, weight in self.operands:
            for k in range(start, stop):
                row[int(wires[k])] = weight * 2.0 ** (k - start)
        constant = sum(self.constants[k] << (k - start) for k in range(start, stop))
        return row, constant


def add_in_blocks(circuit: Circuit, name: str, drop: str, addends: Sum) -> None:
    """6 layers of two-level carry lookahead; the largest weight is 2^B.

    Args:
        circuit: gets the layers.
        name: of the sum.
        drop: wires that are not needed after the first layer.
        addends: the addition.
    """
    num_bits = len(addends.constants)
    size = ceil(sqrt(num_bits))
    blocks = [Block(k, min(k + size, num_bits)) for k in range(0, num_bits, size)]

    _find_block_states(circuit, drop, addends, blocks)
    _carry_out_of_blocks(circuit, len(blocks))
    _carry_inside_of_blocks(circuit, blocks)

    # the carry out of every bit: of a block where the bit is the last one, else from inside
    block_carry = circuit["block_carry"].tolist()
    inside = iter(_pairs(circuit["inside"]))
    carries: list[Row] = []
    for j, block in enumerate(blocks):
        carries += [_difference(next(inside)) for _ in range(block.start, block.stop - 1)]
        carries.append({block_carry[j]: 1})
    circuit.layer(drop="h block_carry inside", **{name: _carried_sum(circuit["h"], carries)})


def _find_block_states(circuit: Circuit, drop: str, addends: Sum, blocks: Sequence[Block]) -> None:
    """2 layers: does a block carry by itself (2), hand a carry on (1) or neither (0)?

    The state is the sum of two wires, ``status``.
    """
    levels: list[Unit] = []
    for start, stop in blocks:
        row, constant = addends.value(start, stop)
        overflow = 1 << (stop - start)
        levels += [(row, constant - overflow + step) for step in (2, 1, 0)]
    circuit.layer(drop=drop, h=addends.digits(), level=_units(levels))

    status: list[Unit] = []
    for two, one, zero in circuit["level"].reshape(-1, 3).tolist():
        status.append((_difference((two, one)), 0))
        status.append((_difference((one, zero)), 0))
    circuit.layer(drop="level", status=_units(status))


def _carry_out_of_blocks(circuit: Circuit, num_blocks: int) -> None:
    """2 layers: the carry out of every block, wires ``block_carry``."""
    status = _pairs(circuit["status"])
    edges: list[Unit] = []
    for j in range(num_blocks):
        below: Row = {}
        for i in range(j + 1):
            for number in status[i]:
                below[number] = 2.0**i
        edges += _threshold(below, 0, 2 << j)
    circuit.layer(drop="status", edge=_units(edges))

    carries = [(_difference(pair), 0) for pair in _pairs(circuit["edge"])]
    circuit.layer(drop="edge", block_carry=_units(carries))


def _carry_inside_of_blocks(circuit: Circuit, blocks: Sequence[Block]) -> None:
    """1 layer: the carry out of every bit but the last of its block, as pairs of wires."""
    digits = Sum([(circuit["h"], 1)], [0] * len(circuit["h"]))
    block_carry = circuit["block_carry"].tolist()
    inside: list[Unit] = []
    for j, (start, stop) in enumerate(blocks):
        into: Row = {block_carry[j - 1]: 1} if j else {}
        for k in range(start, stop - 1):
            row, _ = digits.value(start, k + 1)
            inside += _threshold(row | into, 0, 2 << (k - start))
    circuit.layer(inside=_units(inside))


def add_at_once(
    name: str, addends: Sum
) -> tuple[dict[str, Units], Callable[[Circuit], dict[str, Units]]]:
    """The units of 2 layers that look at all lower bits for every carry.

    The largest weight is 2^(W - 1).

    Args:
        name: of the sum; the first layer's wires are ``NAME_h`` and ``NAME_carry``.
        addends: the addition.

    Returns:
        tuple: the units of the first layer, and a function from the circuit after the first layer
        to the units of the second.
    """
    thresholds: list[Unit] = []
    for k in range(len(addends.constants)):
        row, constant = addends.value(0, k + 1)
        thresholds += _threshold(row, constant, 2 << k)

    def second(circuit: Circuit) -> dict[str, Units]:
        carries = [_difference(pair) for pair in _pairs(circuit[f"{name}_carry"])]
        return {name: _carried_sum(circuit[f"{name}_h"], carries)}

    return {f"{name}_h": addends.digits(), f"{name}_carry": _units(thresholds)}, second


def _carried_sum(h: Tensor, carries: Sequence[Row]) -> Units:
    """``h_k + c_k - 2 c_{k+1}`` from the carry out of every bit."""
    table: list[Row] = []
    into: Row = {}
    for digit, carry in zip(h.tolist(), carries, strict=True):
        outgoing = {number: -2 * weight for number, weight in carry.items()}
        table.append({digit: 1.0} | into | outgoing)
        into = carry
    return units(rows(table))


def _threshold(row: Row, constant: int, least: int) -> list[Unit]:
    """The two units whose difference is ``[row + constant >= least]``."""
    return [(row, constant - least + 1), (row, constant - least)]


def _difference(pair: Sequence[int]) -> Row:
    upper, lower = pair
    return {upper: 1, lower: -1}


def _pairs(wires: Tensor) -> list[list[int]]:
    """Wires two by two, as ``_threshold`` makes them."""
    return wires.reshape(-1, 2).tolist()


def _units(table: Sequence[Unit]) -> Units:
    """One unit for each row of weights and bias."""
    weights = [row for row, _ in table]
    bias = torch.tensor([constant for _, constant in table])
    return units(rows(weights), bias=bias)
