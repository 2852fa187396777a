"""Rules of products and of the layers that torch runs as one operation."""

from torch import Tensor

from learned_opt.symmetry.atoms import fix, length, take, unify
from learned_opt.symmetry.calls import (
    PICKED,
    POSITION,
    Axes,
    Call,
    Labelled,
    Results,
    fresh,
    not_understood,
)
from learned_opt.symmetry.pointwise import pointwise


def matmul(call: Call) -> Results:
    """``mm``, ``bmm``, ``mv``, ``dot``: the contracted axes permute together, batch axes too."""
    left, right = (call.arguments[name] for name in list(call.arguments)[:2])
    contracted = right.axes[-2] if len(right.axes) > 1 else right.axes[0]
    unify(left.axes[-1], contracted)
    batch = left.axes[:-2]
    for a, b in zip(batch, right.axes[:-2], strict=True):
        unify(a, b)
    return [*left.axes[:-1], *([right.axes[-1]] if len(right.axes) > 1 else [])]


def addmm(call: Call) -> Results:
    """``bias + left @ right``."""
    bias, left, right = (call.arguments[name] for name in ("self", "mat1", "mat2"))
    product = matmul(Call("mm", {"left": left, "right": right}, call.result))
    return pointwise(
        Call("add", {"bias": bias, "product": Labelled(call.result, product)}, call.result)
    )


def convolution(call: Call) -> Results:
    """Channels contract; groups are a factor of input and output channels; positions and kernel positions are fixed."""
    source, weight, bias = (call.arguments[name] for name in ("input", "weight", "bias"))
    groups, transposed = call.arguments["groups"], call.arguments["transposed"]
    for axis in [*source.axes[2:], *weight.axes[2:]]:
        fix(axis, POSITION)
    parts_in = take(source.axes[1], groups)
    outer, inner = (
        (weight.axes[1], weight.axes[0]) if transposed else (weight.axes[0], weight.axes[1])
    )
    parts_weight = take(inner if transposed else outer, groups)
    if parts_in is None or parts_weight is None:
        return not_understood(call)
    (group_in, per_group), (group_weight, rest) = parts_in, parts_weight
    unify(group_in, group_weight)
    unify(per_group, rest if transposed else inner)
    channels = [*group_weight, *outer] if transposed else outer
    if bias is not None:
        unify(channels, bias.axes[0])
    positions = [fresh(size, POSITION) for size in call.result.shape[2:]]
    return [source.axes[0], channels, *positions]


def embedding(call: Call) -> Results:
    """Rows are picked by index, so the vocabulary is fixed."""
    weight, indices = call.arguments["weight"], call.arguments["indices"]
    fix(weight.axes[0], PICKED)
    return [*indices.axes, weight.axes[1]]


def trilinear(call: Call) -> Results:
    """Three tensors, broadcast over inserted axes, multiplied and summed: what ``nn.Bilinear`` runs."""
    axes: Axes = [
        [] for _ in range(len(call.arguments["i1"].axes) + len(call.arguments["expand1"]))
    ]
    for number in "123":
        own = iter(call.arguments[f"i{number}"].axes)
        for position in range(len(axes)):
            if position in call.arguments[f"expand{number}"]:
                continue
            axis = next(own)
            if length(axes[position]) == 1:
                axes[position] = axis
            elif length(axis) > 1:
                unify(axes[position], axis)
    return [axis for position, axis in enumerate(axes) if position not in call.arguments["sumdim"]]


def layer_norm(call: Call) -> Results:
    """Trailing axes are normalised together and scaled entry by entry; results: output, mean, reciprocal deviation."""
    source, count = call.arguments["input"], len(call.arguments["normalized_shape"])
    for name in ("weight", "bias"):
        if call.arguments[name] is not None:
            for axis, own in zip(source.axes[-count:], call.arguments[name].axes, strict=True):
                unify(axis, own)
    statistics: Axes = [*source.axes[:-count], *([[]] * count)]
    return [source.axes, statistics, statistics]


def batch_norm(call: Call) -> Results:
    """Channels are scaled one by one; statistics are permuted along where they do not vary yet."""
    source = call.arguments["input"]
    for name in ("weight", "bias", "running_mean", "running_var"):
        if call.arguments.get(name) is not None:
            unify(source.axes[1], call.arguments[name].axes[0])
    statistics = [[source.axes[1]] if r.numel() else [[]] for r in call.result[1:]]
    return [source.axes, *statistics]


def group_norm(call: Call) -> Results:
    """Groups of channels may swap, channels may permute in all groups alike; results: output and two statistics."""
    source, groups = call.arguments["input"], call.arguments["group"]
    parts = take(source.axes[1], groups)
    if parts is None:
        return not_understood(call)
    for name in ("weight", "bias"):
        if call.arguments[name] is not None:
            unify(source.axes[1], call.arguments[name].axes[0])
    return [source.axes, [source.axes[0], parts[0]], [source.axes[0], parts[0]]]


def positions(call: Call) -> Results:
    """Pooling and resampling: batch and channels pass, positions are fixed."""
    source = call.labelled[0]
    results = (
        [call.result]
        if isinstance(call.result, Tensor)
        else [r for r in call.result if r is not None]
    )
    keep = len(source.axes) - (1 if "1d" in call.name else 2)
    for axis in source.axes[keep:]:
        fix(axis, POSITION)
    axes = [
        [*source.axes[:keep], *(fresh(size, POSITION) for size in result.shape[keep:])]
        for result in results
    ]
    return axes[0] if isinstance(call.result, Tensor) else axes
