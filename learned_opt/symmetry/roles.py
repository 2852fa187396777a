"""What a tensor is for, as far as the trace of its network tells: the reasons of its fixed axes."""

from learned_opt.symmetry.atoms import PIECES
from learned_opt.symmetry.calls import PICKED
from learned_opt.symmetry.spec import PermutationSpec


def is_table(spec: PermutationSpec, parameter: str) -> bool:
    """Whether rows of a tensor are picked by index, as those of an embedding.

    >>> spec = PermutationSpec({"words": ("word", "width")}, {"word"}, reasons={"word": PICKED})
    >>> is_table(spec, "words")
    True
    """
    names = spec.axes.get(parameter, ())
    return len(names) > 1 and spec.reasons.get(names[0]) == PICKED


def num_pieces(spec: PermutationSpec, parameter: str) -> int:
    """How many matrices are stacked along the first axis, such as packed queries, keys, values.

    >>> axes = {"packed": ("piece", "head", "size", "width")}
    >>> views = {"packed": ((3, 2, 4), (8,))}
    >>> num_pieces(PermutationSpec(axes, {"piece"}, views, {"piece": PIECES}), "packed")
    3
    """
    names = spec.axes.get(parameter, ())
    factors = spec.views.get(parameter, ())
    if not factors or len(factors[0]) < 2 or spec.reasons.get(names[0]) != PIECES:
        return 1
    return factors[0][0]
