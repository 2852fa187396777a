"""Slow dense oracles for UNF layers: every basis map as an explicit matrix, by definition."""

from itertools import product

import torch
from torch import Tensor

from learned_opt.symmetry import PermutationSpec
from learned_opt.unf import UNFLinear
from learned_opt.unf.layers import _escape, _key
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


def basis_matrix(labels: tuple[int, ...], out_shape: tuple[int, ...], in_shape: tuple[int, ...]) -> Tensor:
    """E_P as a 0/1 matrix ``(prod(out_shape), prod(in_shape))``: 1 where equal labels have equal indices."""
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


def dense_forward(layer: UNFLinear, inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """``UNFLinear.forward`` by materialising every basis map."""
    shapes = {name: tuple(tensor.shape[:-1]) for name, tensor in inputs.items()}
    outputs = {name: torch.zeros(*shape, layer.out_channels, dtype=torch.float64) for name, shape in shapes.items()}
    for group in layer.plan.groups:
        weight = layer.weights[_key(group.signature)]
        for (k, source), (d, target) in product(enumerate(group.sources), enumerate(group.targets)):
            out, inp = shapes[target.parameter], shapes[source.parameter]
            matrix = mean_normalised(basis_matrix(combined_partition(target, source), out, inp))
            mixed = matrix @ inputs[source.parameter].reshape(-1, layer.in_channels) @ weight[k, :, d]
            outputs[target.parameter] = outputs[target.parameter] + mixed.reshape(*out, -1)
    biases = {name: layer.biases[_escape(name)] for name in outputs} if layer.biases else dict.fromkeys(outputs, 0)
    return {name: outputs[name] + biases[name] for name in outputs}


def num_orbits(spec: PermutationSpec, sizes: dict[str, int]) -> int:
    """Dimension of the space of equivariant maps, by brute force.

    That is the number of orbits of the group on pairs (output entry, input entry), over all ordered pairs of tensors.
    """
    orbits = set()
    for out, inp in product(spec.axes, repeat=2):
        names = (*spec.axes[out], *spec.axes[inp])
        for index in product(*(range(sizes[name]) for name in names)):
            # indices are interchangeable within a name: only the pattern of equalities is left
            orbits.add((out, inp, canonical(tuple(zip(names, index, strict=True)))))
    return len(orbits)
