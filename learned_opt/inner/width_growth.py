"""Which axes of which tensors grow with the width of a network: those that its spec permutes.

A fixed axis (pixels, classes, words, kernel positions) stays as long as it is.
"""

from collections.abc import Mapping
from math import prod
from typing import NamedTuple

from torch import Tensor, nn

from learned_opt.optimizers.nowcast.roles import reads_first_axis
from learned_opt.symmetry.spec import PermutationSpec

INPUT = "input"  # weights whose outputs alone grow
HIDDEN = "hidden"  # both sides grow
OUTPUT = "output"  # inputs alone grow
VECTOR = "vector"  # biases and gains that grow
FIXED = "fixed"  # nothing grows


class Growth(NamedTuple):
    """How a tensor grows.

    Args:
        kind: ``input``, ``hidden``, ``output``, ``vector`` or ``fixed``.
        fan_in: length of its growing inputs, without kernel positions; 1 where they do not grow.
        fan_out: length of its growing outputs; 1 where they do not grow.
    """

    kind: str
    fan_in: int
    fan_out: int

    @property
    def width(self) -> int:
        """The length that grows: that of the inputs, or else of the outputs."""
        return self.fan_out if self.fan_in == 1 else self.fan_in


def growth_of(
    spec: PermutationSpec, params: Mapping[str, Tensor], network: nn.Module | None = None
) -> dict[str, Growth]:
    """How every parameter grows.

    Weights are (outputs, inputs, ...), as in torch; but for those of embeddings and transposed
    convolutions, which only the module can tell.

    Args:
        spec: of the parameters.
        params: tensors of their shapes.
        network: the module that the parameters are of, where there is one.

    >>> import torch
    >>> spec = PermutationSpec({"w": ("hidden", "pixel"), "b": ("hidden",)}, {"pixel"})
    >>> growth_of(spec, {"w": torch.zeros(8, 3), "b": torch.zeros(8)})["w"]
    Growth(kind='input', fan_in=1, fan_out=8)
    """
    turned = reads_first_axis(network) if network is not None else set[str]()
    lengths = _growing_lengths(spec, params)

    growths = {}
    for name, param in params.items():
        grown = lengths.get(name, {})
        out_axis = 1 if name in turned else 0
        inputs = [length for axis, length in grown.items() if axis != out_axis]
        outputs = grown.get(out_axis, 1)
        kind = _kind(param.ndim, bool(inputs), out_axis in grown)
        growths[name] = Growth(kind, prod(inputs), outputs)
    return growths


def _kind(num_axes: int, inputs_grow: bool, outputs_grow: bool) -> str:
    if not inputs_grow and not outputs_grow:
        return FIXED
    if num_axes < 2:
        return VECTOR
    if inputs_grow and outputs_grow:
        return HIDDEN
    return OUTPUT if inputs_grow else INPUT


def _growing_lengths(
    spec: PermutationSpec, params: Mapping[str, Tensor]
) -> dict[str, dict[int, int]]:
    """Parameter -> axis that grows -> length of what grows in it, without fixed factors."""
    viewed = spec.view(params)
    lengths: dict[str, dict[int, int]] = {}
    for tensor, names in spec.axes.items():
        of_tensor: dict[int, int] = {}
        shape = viewed[tensor].shape
        for name, slot, length in zip(names, spec.slots(tensor), shape, strict=False):
            if name not in spec.fixed:
                of_tensor[slot] = of_tensor.get(slot, 1) * length

        # the pieces of a cut parameter grow alike
        of_parameter = lengths.setdefault(spec.layout.owner(tensor), {})
        for slot, length in of_tensor.items():
            of_parameter[slot] = max(length, of_parameter.get(slot, 1))
    return lengths
