"""Slow dense oracles for UNF layers: every basis map as an explicit matrix, by definition."""

from itertools import product

import torch
from torch import Tensor

from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import UNFLinear
from learned_opt.unf.coefficients import escape, weight_key
from learned_opt.unf.plan import Pattern


def canonical(labels: tuple) -> tuple[int, ...]:
    """Renumber block labels by first appearance."""
    order = list(dict.fromkeys(labels))
    return tuple(order.index(label) for label in labels)


def combined_partition(target: Pattern, source: Pattern) -> tuple[int, ...]:
    """The valid partition of (output axes, input axes) that a pair of patterns stands for."""
    matched = {s: ("out", t) for s, t in zip(source.kept, target.kept, strict=True)}
    out = [("out", block) for block in target.labels]
    return canonical((*out, *(matched.get(block, ("in", block)) for block in source.labels)))


def basis_matrix(
    labels: tuple[int, ...], out_shape: tuple[int, ...], in_shape: tuple[int, ...]
) -> Tensor:
    """E_P as a 0/1 matrix ``(prod(out_shape), prod(in_shape))``.

    An entry is 1 where equal labels have equal indices.
    """
    matrix = torch.zeros((*out_shape, *in_shape), dtype=torch.float64)
    for index in product(*map(range, (*out_shape, *in_shape))):
        values: dict[int, int] = {}
        if all(values.setdefault(label, i) == i for label, i in zip(labels, index, strict=True)):
            matrix[index] = 1
    rows = torch.Size(out_shape).numel()
    return matrix.reshape(rows, -1)


def mean_normalised(matrix: Tensor) -> Tensor:
    """Sums turned into means: every row that is not zero sums to one."""
    return matrix / matrix.sum(1, keepdim=True).clamp(min=1)


def slices(layer: UNFLinear, parameter: str, tensor: Tensor) -> list[Tensor]:
    """The tensor at every index of its folded axes, views in the order of the indices."""
    names = layer.spec.axes[parameter]
    ranges = []
    for axis, name in enumerate(names):
        is_folded = name in layer.spec.folded
        ranges.append(range(tensor.shape[axis]) if is_folded else [slice(None)])
    return [tensor[index] for index in product(*ranges)]


def dense_forward(layer: UNFLinear, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """``UNFLinear.forward`` by materialising every basis map."""
    shapes = {name: tuple(tensor.shape[:-1]) for name, tensor in inputs.items()}
    outputs = {
        name: torch.zeros(*shape, layer.out_channels, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    if layer.biases:
        for name, tensor in outputs.items():
            biases = layer.biases[escape(name)].detach().split(layer.out_channels)
            for part, bias in zip(slices(layer, name, tensor), biases, strict=True):
                part.add_(bias)
    for group in layer.plan.groups:
        weight = layer.weights[weight_key(group.signature)].detach()
        sources = parts_of(group.sources, layer, inputs)
        targets = parts_of(group.targets, layer, outputs)
        for k, (source, read) in enumerate(sources):
            for d, (target, written) in enumerate(targets):
                labels = combined_partition(target, source)
                matrix = mean_normalised(basis_matrix(labels, written.shape[:-1], read.shape[:-1]))
                mixed = matrix @ read.reshape(-1, layer.in_channels) @ weight[k, :, d]
                written.add_(mixed.reshape(written.shape))
    return outputs


def parts_of(
    patterns: tuple[Pattern, ...], layer: UNFLinear, tensors: dict[str, Tensor]
) -> list[tuple[Pattern, Tensor]]:
    """Each pattern with each folded slice of its tensor."""
    parts = []
    for pattern in patterns:
        views = slices(layer, pattern.parameter, tensors[pattern.parameter])
        parts.extend((pattern, view) for view in views)
    return parts


def num_orbits(spec: PermutationSpec, sizes: dict[str, int]) -> int:
    """Dimension of the space of equivariant maps, by brute force.

    That is the number of orbits of the group on pairs (output entry, input entry), over all ordered
    pairs of tensors.
    """
    orbits = set()
    for out, inp in product(spec.axes, repeat=2):
        names = (*spec.axes[out], *spec.axes[inp])
        for index in product(*(range(sizes[name]) for name in names)):
            # indices are interchangeable within a name: only the pattern of equalities is left
            orbits.add((out, inp, canonical(tuple(zip(names, index, strict=True)))))
    return len(orbits)
