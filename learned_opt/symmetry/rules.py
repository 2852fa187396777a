"""What each tensor operation says about the axes that go in and come out.

A rule gets one operation with every tensor argument labelled by its axes and returns the axes of
the result. It unifies the axes that must be permuted together for the operation to commute with
permutation, and fixes those whose order matters. Operations without a rule fix everything that they
touch, so the result can only be too small a group, never a wrong one.
"""

from collections.abc import Callable

import torch

from learned_opt.symmetry import contractions, reshaping
from learned_opt.symmetry import pointwise as entries
from learned_opt.symmetry.calls import Call, Results, not_understood

Rule = Callable[[Call], Results]


def _table(rule: Rule, names: str) -> dict[str, Rule]:
    """The same rule for several operations, named in one text."""
    return dict.fromkeys(names.split(), rule)


RULES: dict[str, Rule] = {
    **_table(
        entries.reduction,
        "sum mean amax amin var std var_mean std_mean any all logsumexp prod linalg_vector_norm",
    ),
    **_table(entries.argument, "argmin argmax"),
    **_table(
        entries.same_axes,
        "clone alias detach _to_copy contiguous lift_fresh_copy _softmax _log_softmax dropout",
    ),
    **_table(reshaping.view, "view _unsafe_view reshape"),
    **_table(contractions.matmul, "mm bmm mv dot"),
    **_table(
        contractions.positions,
        "max_pool2d_with_indices avg_pool2d _adaptive_avg_pool2d avg_pool1d "
        "upsample_nearest2d upsample_bilinear2d",
    ),
    **_table(entries.along("dim", "dims"), "cumsum flip sort topk cumprod"),
    **_table(reshaping.split, "split_with_sizes split"),
    **_table(entries.filled, "full_like zeros_like ones_like new_zeros new_ones new_full"),
    **_table(
        contractions.batch_norm,
        "native_batch_norm _native_batch_norm_legit_no_training _native_batch_norm_legit",
    ),
    "_trilinear": contractions.trilinear,
    "native_layer_norm": contractions.layer_norm,
    "native_group_norm": contractions.group_norm,
    "addmm": contractions.addmm,
    "cat": reshaping.cat,
    "copy": entries.pointwise,
    "convolution": contractions.convolution,
    "embedding": contractions.embedding,
    "expand": reshaping.expand,
    "index": reshaping.index,
    "index_select": reshaping.index_select,
    "permute": reshaping.permute,
    "select": reshaping.select,
    "slice": reshaping.slice_,
    "squeeze": reshaping.squeeze,
    "t": reshaping.matrix_transpose,
    "transpose": reshaping.transpose,
    "unbind": reshaping.unbind,
    "unsqueeze": reshaping.unsqueeze,
}

# these pass positions on an axis on, or take them for positions; all others take them for numbers
KEEP_POSITIONS = {
    "index",
    "index_select",
    "clone",
    "alias",
    "detach",
    "contiguous",
    "lift_fresh_copy",
}

# in place, but on the shape alone
RESHAPES_IN_PLACE = {"transpose_", "t_", "squeeze_", "unsqueeze_"}


def rule_for(op: torch._ops.OpOverload) -> Rule:
    """The rule of an operation.

    Of those that write into their first argument, the ones that change its shape alone and the
    pointwise ones are understood: what they write has the axes of the result, and views of the
    argument share its atoms.
    """
    name = op._schema.name.split("::")[1]
    if name in RESHAPES_IN_PLACE:
        return RULES[name.rstrip("_")]
    if torch.Tag.pointwise in op.tags and name not in RULES:
        return entries.pointwise
    if op._schema.is_mutable:
        return not_understood
    return RULES.get(name, not_understood)
