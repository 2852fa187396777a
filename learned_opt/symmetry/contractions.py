"""Rules of products and of the layers that torch runs as one operation."""

from torch import Tensor

from learned_opt.symmetry.atoms import fix, fresh, length, take, unify
from learned_opt.symmetry.calls import (
    PICKED,
    POSITION,
    Axes,
    Call,
    Labelled,
    Results,
    not_understood,
)
from learned_opt.symmetry.pointwise import pointwise


def matmul(call: Call) -> Results:
    """``mm``, ``bmm``, ``mv``, ``dot``: contracted axes permute together, batch axes too."""
    left, right = list(call.arguments.values())[:2]  # (*batch, n, k) and (*batch, k, m)
    contracted = right.axes[-2] if len(right.axes) > 1 else right.axes[0]
    unify(left.axes[-1], contracted)

    for left_axis, right_axis in zip(left.axes[:-2], right.axes[:-2], strict=True):
        unify(left_axis, right_axis)

    columns = [right.axes[-1]] if len(right.axes) > 1 else []
    return [*left.axes[:-1], *columns]


def addmm(call: Call) -> Results:
    """``bias + left @ right``."""
    factors = {"left": call.arguments["mat1"], "right": call.arguments["mat2"]}
    product = Labelled(call.result, matmul(Call("mm", factors, call.result)))
    terms = {"bias": call.arguments["self"], "product": product}
    return pointwise(Call("add", terms, call.result))


def convolution(call: Call) -> Results:
    """Channels contract, positions of images and kernels are fixed.

    Groups are a factor of both the input and the output channels.
    """
    source = call.arguments["input"]
    weight = call.arguments["weight"]
    bias = call.arguments["bias"]
    groups = call.arguments["groups"]
    transposed = call.arguments["transposed"]

    for axis in [*source.axes[2:], *weight.axes[2:]]:
        fix(axis, POSITION)

    # weight is (out, in / groups, ...), and (in, out / groups, ...) where transposed
    outer, inner = weight.axes[:2]
    if transposed:
        inner, outer = weight.axes[:2]
    source_parts = take(source.axes[1], groups)
    weight_parts = take(inner if transposed else outer, groups)
    if source_parts is None or weight_parts is None:
        return not_understood(call)

    source_groups, per_group = source_parts
    weight_groups, rest = weight_parts
    unify(source_groups, weight_groups)
    unify(per_group, rest if transposed else inner)
    channels = [*weight_groups, *outer] if transposed else outer
    if bias is not None:
        unify(channels, bias.axes[0])

    positions = [fresh(size, POSITION) for size in call.result.shape[2:]]
    return [source.axes[0], channels, *positions]


def embedding(call: Call) -> Results:
    """Rows are picked by index, so the vocabulary is fixed."""
    weight = call.arguments["weight"]  # (vocabulary, channels)
    indices = call.arguments["indices"]
    fix(weight.axes[0], PICKED)

    return [*indices.axes, weight.axes[1]]


def trilinear(call: Call) -> Results:
    """Three tensors, broadcast over inserted axes, multiplied and summed, as in ``nn.Bilinear``."""
    rank = len(call.arguments["i1"].axes) + len(call.arguments["expand1"])
    axes: Axes = [[] for _ in range(rank)]

    for number in "123":
        remaining = iter(call.arguments[f"i{number}"].axes)
        inserted = call.arguments[f"expand{number}"]
        for position in range(rank):
            if position in inserted:
                continue
            axis = next(remaining)
            if length(axes[position]) == 1:
                axes[position] = axis
            elif length(axis) > 1:
                unify(axes[position], axis)

    summed = call.arguments["sumdim"]
    return [axis for position, axis in enumerate(axes) if position not in summed]


def layer_norm(call: Call) -> Results:
    """Trailing axes are normalised together and scaled entry by entry.

    Results are the output, the mean and the reciprocal deviation.
    """
    source = call.arguments["input"]
    count = len(call.arguments["normalized_shape"])
    for name in ("weight", "bias"):
        scale = call.arguments[name]
        if scale is not None:
            for source_axis, scale_axis in zip(source.axes[-count:], scale.axes, strict=True):
                unify(source_axis, scale_axis)

    reduced: Axes = [[] for _ in range(count)]
    statistics: Axes = [*source.axes[:-count], *reduced]
    return [source.axes, statistics, statistics]


def batch_norm(call: Call) -> Results:
    """Channels are scaled one by one; statistics permute along where they do not vary yet."""
    source = call.arguments["input"]  # (batch, channels, *positions)
    channels = source.axes[1]

    for name in ("weight", "bias", "running_mean", "running_var"):
        vector = call.arguments.get(name)
        if vector is not None:
            unify(channels, vector.axes[0])

    # where nothing is saved for the backward pass, torch returns empty tensors
    statistics = [[channels] if result.numel() else [[]] for result in call.result[1:]]
    return [source.axes, *statistics]


def group_norm(call: Call) -> Results:
    """Groups of channels may swap, channels may permute in all groups alike.

    Results are the output and two statistics.
    """
    source = call.arguments["input"]
    parts = take(source.axes[1], call.arguments["group"])
    if parts is None:
        return not_understood(call)

    for name in ("weight", "bias"):
        vector = call.arguments[name]
        if vector is not None:
            unify(source.axes[1], vector.axes[0])

    groups, _ = parts
    return [source.axes, [source.axes[0], groups], [source.axes[0], groups]]


def positions(call: Call) -> Results:
    """Pooling and resampling: batch and channels pass, positions are fixed."""
    source = call.labelled[0]
    num_spatial = 1 if "1d" in call.name else 2
    keep = len(source.axes) - num_spatial  # batch, where there is one, and channels

    for axis in source.axes[keep:]:
        fix(axis, POSITION)

    def axes_of(result: Tensor) -> Axes:
        resampled = [fresh(size, POSITION) for size in result.shape[keep:]]
        return [*source.axes[:keep], *resampled]

    if isinstance(call.result, Tensor):
        return axes_of(call.result)
    return [axes_of(result) for result in call.result if result is not None]
