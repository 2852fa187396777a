"""Atoms: the smallest pieces of axes that may be permuted, unified as operations tie them together.

An axis is a list of atoms, its factors in row-major order: the axis of packed attention weights is (3, heads, size),
an axis of length 1 is the empty list. Unifying two axes means that they must be permuted by the same permutation.
An atom that turns out to be a product is split; everything unified with it splits too.
"""

from collections.abc import Sequence
from math import prod

Axis = list["Atom"]


class Atom:
    """One factor of an axis: a node of a union-find forest whose roots may be split.

    Args:
        size: length.
        reason: why its indices mean something; the empty string while it may be permuted.
    """

    def __init__(self, size: int, reason: str = "") -> None:
        self.size, self.reason = size, reason
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
    """Number of indices of the axis."""
    return prod(atom.size for atom in axis)


def fix(axis: Sequence[Atom], reason: str) -> None:
    """Forbid permuting the axis; the first reason is kept."""
    for atom in leaves(axis):
        atom.reason = atom.reason or reason


def unify(left: Sequence[Atom], right: Sequence[Atom]) -> None:
    """Make two axes of equal length permute together, by a common refinement; fix both where there is none."""
    lefts, rights = leaves(left), leaves(right)
    while lefts and rights:
        a, b = lefts[0], rights[0]
        if a.size == b.size:
            _join(a, b)
            lefts, rights = leaves(lefts[1:]), leaves(rights[1:])
        elif a.size % b.size == 0:
            _split(a, b.size)
            lefts, rights = leaves(lefts), leaves(rights)
        elif b.size % a.size == 0:
            _split(b, a.size)
            lefts, rights = leaves(lefts), leaves(rights)
        else:
            reason = f"axes of {a.size} and {b.size} indices meet and neither divides the other"
            fix([*lefts, *rights], reason)
            return


def take(axis: Sequence[Atom], size: int) -> tuple[Axis, Axis] | None:
    """Cut an axis into its leading factors of ``size`` indices in all and the rest, splitting an atom where need be.

    Returns:
        tuple[Axis, Axis] | None: the two parts; None where no product structure allows the cut.
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
    atom.factors = [Atom(size, atom.reason), Atom(atom.size // size, atom.reason)]
