"""Axes that are sums: concatenations, and the ranges that are cut out of them."""

from collections.abc import Sequence

from learned_opt.symmetry.atoms import PIECES, Atom, Axis, is_sum, leaves, length, parts_of


def sum_of(terms: Sequence[Axis]) -> Axis:
    """The axis of a concatenation of axes.

    >>> length(sum_of([[Atom(5)], [Atom(7)]]))
    12
    """
    if len(terms) == 1:
        return terms[0]

    size = sum(map(length, terms))
    if all(map(is_fixed, terms)):
        return [Atom(size, first_reason(terms))] if size > 1 else []
    whole = Atom(size)
    whole.terms = list(terms)
    return [whole]


def sum_range(axis: Axis, start: int, size: int) -> Axis:
    """Indices start..start+size of an axis, which becomes a sum that is cut at both ends.

    >>> whole = [Atom(12)]
    >>> length(sum_range(whole, 0, 5)), length(sum_range(whole, 5, 7))
    (5, 7)
    """
    stop = start + size
    waiting = [(0, axis)]
    inside: list[Axis] = []
    while waiting:
        begin, part = waiting.pop()
        end = begin + length(part)
        if end <= start or stop <= begin:
            continue
        if start <= begin and end <= stop:
            inside.append(part)
            continue

        # the first of the two cuts that lies within the part
        cut = (start if begin < start else stop) - begin
        following = []
        for smaller in parts_of(part, cut):
            following.append((begin, smaller))
            begin += length(smaller)
        waiting.extend(reversed(following))
    return sum_of(inside)


def simplify(axis: Sequence[Atom]) -> Axis:
    """The leaves of an axis, with no sums but those that matter.

    A sum whose parts are all fixed is one fixed atom. A sum of equal parts is a product of blocks.
    """
    simple: Axis = []
    waiting = list(reversed(leaves(axis)))
    while waiting:
        atom = waiting.pop()
        if atom.terms is None:
            simple.append(atom)
            continue

        parts = list(map(leaves, _flat(atom.terms)))
        if all(map(is_fixed, parts)):
            atom.reason = first_reason(parts)
            atom.terms = None
            simple.append(atom)
        elif all(part == parts[0] for part in parts):
            atom.factors = [Atom(len(parts), PIECES), *parts[0]]
            atom.terms = None
            waiting.extend(reversed(leaves([atom])))
        else:
            atom.terms = parts
            simple.append(atom)
    return simple


def _flat(terms: Sequence[Axis]) -> list[Axis]:
    """The terms of a sum, with those of sums among them in their stead."""
    flat: list[Axis] = []
    waiting = list(reversed(terms))
    while waiting:
        term = waiting.pop()
        if is_sum(term):
            waiting.extend(reversed(leaves(term)[0].terms or []))
        else:
            flat.append(term)
    return flat


def is_fixed(axis: Sequence[Atom]) -> bool:
    """Whether no part of the axis may be permuted; so it is with a single index."""
    return all(atom.reason for atom in _parts(axis))


def first_reason(terms: Sequence[Axis]) -> str:
    """Why the first fixed part of several axes is fixed."""
    for term in terms:
        for atom in _parts(term):
            if atom.reason:
                return atom.reason
    return PIECES


def _parts(axis: Sequence[Atom]) -> Axis:
    """All leaves, those of sums too."""
    parts: Axis = []
    waiting = list(reversed(leaves(axis)))
    while waiting:
        atom = waiting.pop()
        if atom.terms is None:
            parts.append(atom)
            continue
        for term in reversed(atom.terms):
            waiting.extend(reversed(leaves(term)))
    return parts
