"""Atoms: the smallest pieces of axes that may be permuted, unified as operations tie them together.

An axis is a list of atoms, its factors in row-major order: the axis of packed attention weights is
(3, heads, size), an axis of length 1 is the empty list. Unifying two axes means that they must be
permuted by the same permutation. An atom that turns out to be a product is split; everything
unified with it splits too.
"""

from collections.abc import Sequence
from math import prod

Axis = list["Atom"]


class Atom:
    """One factor of an axis: a node of a union-find forest whose roots may be split.

    Args:
        size: number of indices.
        reason: why its indices mean something; the empty string while it may be permuted.
    """

    def __init__(self, size: int, reason: str = "") -> None:
        self.size = size
        self.reason = reason
        self.parent: Atom | None = None
        self.factors: Axis | None = None

    @property
    def root(self) -> "Atom":
        """The representative of all atoms unified with this one."""
        atom = self
        while atom.parent is not None:
            atom = atom.parent
        return atom


def leaves(axis: Sequence[Atom]) -> Axis:
    """The axis as representatives that are not split further."""
    flat: Axis = []
    for atom in axis:
        root = atom.root
        flat.extend(leaves(root.factors) if root.factors is not None else [root])
    return flat


def length(axis: Sequence[Atom]) -> int:
    """Number of indices of the axis.

    >>> length([Atom(2), Atom(3)])
    6
    """
    return prod(atom.size for atom in axis)


def fix(axis: Sequence[Atom], reason: str) -> None:
    """Forbid permuting the axis; the first reason is kept."""
    for atom in leaves(axis):
        atom.reason = atom.reason or reason


def unify(left: Sequence[Atom], right: Sequence[Atom]) -> None:
    """Make two axes of equal length permute together, by a common refinement.

    Where there is none, both are fixed.

    >>> heads, size, packed = Atom(2), Atom(3), Atom(6)
    >>> unify([heads, size], [packed])
    >>> leaves([packed]) == leaves([heads, size])
    True
    """
    left_rest = leaves(left)
    right_rest = leaves(right)
    while left_rest and right_rest:
        a = left_rest[0]
        b = right_rest[0]
        if a.size == b.size:
            _join(a, b)
            left_rest = left_rest[1:]
            right_rest = right_rest[1:]
        elif a.size % b.size == 0:
            _split(a, b.size)
        elif b.size % a.size == 0:
            _split(b, a.size)
        else:
            reason = f"axes of {a.size} and {b.size} indices meet and neither divides the other"
            fix([*left_rest, *right_rest], reason)
            return

        # the same atom may stand further on in either axis, so both are read anew
        left_rest = leaves(left_rest)
        right_rest = leaves(right_rest)


def take(axis: Sequence[Atom], size: int) -> tuple[Axis, Axis] | None:
    """Cut an axis in two, splitting an atom where need be.

    Args:
        axis: what is cut.
        size: number of indices of the first part.

    Returns:
        tuple[Axis, Axis] | None: the leading factors and the rest; None where no product structure
        allows the cut.

    >>> head, rest = take([Atom(6), Atom(2)], 3)
    >>> length(head), length(rest)
    (3, 4)
    """
    head: Axis = []
    rest = leaves(axis)
    while size > 1:
        if not rest:
            return None

        atom = rest[0]
        if size % atom.size == 0:
            head.append(atom)
            size //= atom.size
            rest = rest[1:]
        elif atom.size % size == 0:
            _split(atom, size)
            rest = leaves(rest)
        else:
            return None
    return head, rest


def _join(a: Atom, b: Atom) -> None:
    if a is not b:
        a.reason = a.reason or b.reason
        b.parent = a


def _split(atom: Atom, size: int) -> None:
    # both factors are as fixed as the whole
    atom.factors = [Atom(size, atom.reason), Atom(atom.size // size, atom.reason)]
