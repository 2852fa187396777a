"""Atoms: the smallest pieces of axes that may be permuted, unified as operations tie them together.

An axis is a list of atoms, its factors in row-major order: the axis of packed attention weights is
(3, heads, size), an axis of length 1 is the empty list. Unifying two axes means that they must be
permuted by the same permutation. An atom that turns out to be a product is split; everything
unified with it splits too. An atom may also be a sum: the axis of a concatenation, whose parts are
permuted each by its own permutation (``sums``).
"""

from collections import deque
from collections.abc import Sequence
from math import prod

Axis = list["Atom"]
PIECES = "tells pieces apart that are used differently"


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
        self.terms: list[Axis] | None = None  # parts of a sum, one behind the other

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
    waiting = leaves(axis)
    while waiting:
        atom = waiting.pop()
        if atom.terms is None:
            atom.reason = atom.reason or reason
            continue
        for term in atom.terms:
            waiting.extend(leaves(term))


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
            join(a, b)
            left_rest = left_rest[1:]
            right_rest = right_rest[1:]
        elif a.size % b.size == 0:
            split_product(a, b.size)
        elif b.size % a.size == 0:
            split_product(b, a.size)
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
            split_product(atom, size)
            rest = leaves(rest)
        else:
            return None
    return head, rest


def join(a: Atom, b: Atom) -> None:
    """Make two roots of equal size one; their parts are unified where they are sums."""
    if a is b:
        return
    if a.terms is None and b.terms is None:
        a.reason = a.reason or b.reason
        b.parent = a
        return

    whole, other = (b, a) if a.terms is None else (a, b)
    terms = whole.terms or []
    other_terms = other.terms
    other.parent = whole
    if other_terms is not None:
        unify_terms(terms, other_terms)
    elif other.reason:
        fix([whole], other.reason)


def split_product(atom: Atom, size: int) -> None:
    """Make a root the product of ``size`` blocks and what lies within a block."""
    # both factors are as fixed as the whole
    blocks = Atom(size, atom.reason)
    within = Atom(atom.size // size, atom.reason)
    terms = atom.terms
    atom.factors = [blocks, within]
    if terms is not None:  # parts that now permute alike within all blocks
        atom.terms = None
        fix([blocks], PIECES)
        unify_terms(terms, [[within]] * size)


def unify_terms(left: Sequence[Axis], right: Sequence[Axis]) -> None:
    """Unify two sums of equal length, by a common refinement of their parts.

    >>> a, b, whole = Atom(2), Atom(3), Atom(5)
    >>> unify_terms([[a], [b]], [[whole]])
    >>> [length(term) for term in whole.terms]
    [2, 3]
    """
    left_rest = deque(left)
    right_rest = deque(right)
    while left_rest and right_rest:
        a = left_rest.popleft()
        b = right_rest.popleft()
        both_sums = is_sum(a) and is_sum(b)  # taken apart here: recursion would go deep
        if length(a) == length(b) and not both_sums:
            unify(a, b)
            continue

        size = min(length(a), length(b))
        left_rest.extendleft(reversed(parts_of(a, size) if length(a) > size or both_sums else [a]))
        right_rest.extendleft(reversed(parts_of(b, size) if length(b) > size or both_sums else [b]))


def is_sum(axis: Sequence[Atom]) -> bool:
    """Whether the axis is one sum, and no product."""
    atoms = leaves(axis)
    return len(atoms) == 1 and atoms[0].terms is not None


def parts_of(axis: Sequence[Atom], size: int) -> list[Axis]:
    """The parts of an axis as a sum; one that is none yet is cut.

    Args:
        axis: an axis of more than one index.
        size: where an atom is cut. A product has one part for each index of its first factor, which
            is fixed.
    """
    atoms = leaves(axis)
    first = atoms[0]
    if len(atoms) > 1:
        fix([first], PIECES)
        return [atoms[1:]] * first.size

    if first.terms is None:
        first.terms = [fresh(size, first.reason), fresh(first.size - size, first.reason)]
        first.reason = ""
    return list(first.terms)


def fresh(size: int, reason: str = "") -> Axis:
    """A new axis; empty when there is but one index."""
    return [] if size == 1 else [Atom(size, reason)]
