"""Addition in ReLU layers: carries are thresholds, ``[t >= T] = R(t - T + 1) - R(t - T)`` for whole t.

Legend: W bits of the sum; h_k the digit of bit k before carries (0 to 3), c_k the carry into bit k;
B = ceil(sqrt W) bits of a block.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, sqrt

import torch
from torch import Tensor

from tasks.subleq.wires import Circuit, Units, rows, units, wire

Row = dict[int, float]  # wire -> weight


@dataclass(frozen=True)
class Sum:
    """What is added: digit h_k = sum of weight * wire + constant.

    Args:
        operands: wires ``(W,)`` with their weight, 1 or -1.
        constants: W constants.
    """

    operands: Sequence[tuple[Tensor, int]]
    constants: Sequence[int]

    def digits(self) -> Units:
        """h, ``(W,)``."""
        return units(
            *(wire(*operand) for operand in self.operands), bias=torch.tensor(self.constants)
        )

    def value(self, start: int, stop: int) -> tuple[Row, int]:
        """``sum_{start <= k < stop} 2^(k - start) h_k`` as weights of wires and a constant."""
        bits = range(start, stop)
        row = {
            int(wires[k]): weight * 2.0 ** (k - start)
            for wires, weight in self.operands
            for k in bits
        }
        return row, sum(self.constants[k] << (k - start) for k in bits)


def add_in_blocks(c: Circuit, name: str, drop: str, addends: Sum) -> None:
    """6 layers of two-level carry lookahead; the largest weight is 2^B.

    Args:
        c: gets the layers.
        name: of the sum.
        drop: wires that are not needed after the first layer.
        addends: what is added.
    """
    num_bits = len(addends.constants)
    size = ceil(sqrt(num_bits))
    starts = list(range(0, num_bits, size))
    stops = [min(start + size, num_bits) for start in starts]
    # 1, 2: does a block carry by itself (2), hand a carry on (1) or neither (0)?
    values = [addends.value(start, stop) for start, stop in zip(starts, stops, strict=True)]
    tops = [1 << (stop - start) for start, stop in zip(starts, stops, strict=True)]
    levels = [
        (row, constant - top + step)
        for (row, constant), top in zip(values, tops, strict=True)
        for step in (2, 1, 0)
    ]
    c.layer(drop=drop, h=addends.digits(), level=_units(levels))
    level = c["level"].reshape(-1, 3).tolist()
    status = [(_difference(w[i : i + 2]), 0) for w in level for i in (0, 1)]
    c.layer(drop="level", status=_units(status))
    # 3, 4: the carry out of every block
    pair = c["status"].reshape(-1, 2).tolist()
    below = [{w: 2.0**i for i in range(j + 1) for w in pair[i]} for j in range(len(starts))]
    c.layer(
        drop="status",
        edge=_units([t for j, row in enumerate(below) for t in _threshold(row, 0, 2 << j)]),
    )
    edge = c["edge"].reshape(-1, 2).tolist()
    c.layer(drop="edge", block_carry=_units([(_difference(pair), 0) for pair in edge]))
    # 5, 6: the carries inside of the blocks, and the sum
    own = Sum([(c["h"], 1)], [0] * num_bits)
    carry = c["block_carry"].tolist()
    inside = [
        threshold
        for j, (start, stop) in enumerate(zip(starts, stops, strict=True))
        for k in range(start, stop - 1)
        for threshold in _threshold(
            own.value(start, k + 1)[0] | ({carry[j - 1]: 1} if j else {}), 0, 2 << (k - start)
        )
    ]
    c.layer(inside=_units(inside))
    carry, inner = c["block_carry"].tolist(), iter(c["inside"].reshape(-1, 2).tolist())
    out: list[Row] = [
        {carry[k // size]: 1} if k + 1 in stops else _difference(next(inner))
        for k in range(num_bits)
    ]
    c.layer(drop="h block_carry inside", **{name: _carried_sum(c["h"], out)})


def add_at_once(
    name: str, addends: Sum
) -> tuple[dict[str, Units], Callable[[Circuit], dict[str, Units]]]:
    """The units of 2 layers that look at all lower bits for every carry; the largest weight is 2^(W - 1).

    Args:
        name: of the sum; the first layer's wires are ``NAME_h`` and ``NAME_carry``.
        addends: what is added.

    Returns:
        tuple: the units of the first layer, and those of the second given the circuit after the first.
    """
    bits = range(len(addends.constants))
    thresholds = [t for k in bits for t in _threshold(*addends.value(0, k + 1), 2 << k)]

    def second(c: Circuit) -> dict[str, Units]:
        out = [_difference(pair) for pair in c[f"{name}_carry"].reshape(-1, 2).tolist()]
        return {name: _carried_sum(c[f"{name}_h"], out)}

    return {f"{name}_h": addends.digits(), f"{name}_carry": _units(thresholds)}, second


def _carried_sum(h: Tensor, out: list[Row]) -> Units:
    """``h_k + c_k - 2 c_{k+1}`` from the carry out of every bit."""
    into = [{}, *out[:-1]]
    table = [
        {int(wire): 1.0} | before | {w: -2 * weight for w, weight in after.items()}
        for wire, before, after in zip(h, into, out, strict=True)
    ]
    return units(rows(table))


def _threshold(row: Row, constant: int, least: int) -> list[tuple[Row, int]]:
    """The two units whose difference is ``[row + constant >= least]``."""
    return [(row, constant - least + 1), (row, constant - least)]


def _difference(pair: Sequence[int]) -> Row:
    return {pair[0]: 1, pair[1]: -1}


def _units(table: Sequence[tuple[Row, int]]) -> Units:
    """One unit for each row of weights and bias."""
    return units(rows([row for row, _ in table]), bias=torch.tensor([bias for _, bias in table]))
