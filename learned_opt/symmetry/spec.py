"""Permutation specs: which axes of which parameters may be permuted together.

A spec names every axis of every parameter. Axes that share a name are permuted by the same
permutation; a name in ``fixed`` belongs to axes whose indices mean something (pixels, classes,
kernel positions), which the symmetries of the network leave alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from learned_opt import tree

GroupElement = dict[str, Tensor]


@dataclass(frozen=True)
class PermutationSpec:
    """Permutation names of the axes of a weight space.

    Args:
        axes: parameter name -> one permutation name per axis, e.g.
            ``{"0.weight": ("hidden", "pixel"), "0.bias": ("hidden",)}``.
        fixed: names whose indices mean something; no symmetry permutes them.

    Raises:
        ValueError: ``fixed`` holds a name that no axis has.

    Source: Zhou et al. 2024 (arXiv 2402.05232), section 3, there called a "permutation specification".
    """

    axes: Mapping[str, tuple[str, ...]]
    fixed: Collection[str] = ()

    def __post_init__(self) -> None:
        axes = {parameter: tuple(names) for parameter, names in self.axes.items()}
        object.__setattr__(self, "axes", MappingProxyType(axes))
        object.__setattr__(self, "fixed", frozenset(self.fixed))
        unknown = sorted(set(self.fixed) - set(self.names))
        if unknown:
            raise ValueError(f"fixed must hold names of axes, got {unknown}; axes are named {list(self.names)}.")

    def __hash__(self) -> int:
        return hash((tuple(self.axes.items()), self.fixed))

    def __reduce__(self) -> tuple[Any, ...]:
        return (PermutationSpec, (dict(self.axes), tuple(self.fixed)))

    @property
    def names(self) -> tuple[str, ...]:
        """Permutation names in order of first appearance."""
        return tuple(dict.fromkeys(name for names in self.axes.values() for name in names))

    def sizes(self, params: Mapping[str, Tensor]) -> dict[str, int]:
        """Length of the axes of each name.

        Args:
            params: tensors of shape ``(*axes, ...)``; trailing axes beyond the spec (channels) are ignored.

        Raises:
            ValueError: the parameters do not fit; says which key or axis disagrees.
        """
        keys = tree.difference(list(self.axes), list(params))
        if keys:
            raise ValueError(f"the spec does not fit the parameters: {keys}.")
        sizes: dict[str, tuple[int, str]] = {}
        for parameter, names in self.axes.items():
            shape = tuple(params[parameter].shape)
            if len(shape) < len(names):
                raise ValueError(f"the spec gives {parameter!r} the axes {names}, but its shape is {shape}.")
            for axis, name in enumerate(names):
                size, where = sizes.setdefault(name, (shape[axis], f"axis {axis} of {parameter!r}"))
                if size != shape[axis]:
                    raise ValueError(
                        f"axis {axis} of {parameter!r} is named {name!r} and has size {shape[axis]}, "
                        f"but {where} has that name and size {size}."
                    )
        return {name: size for name, (size, _) in sizes.items()}

    def draw(
        self, params: Mapping[str, Tensor], generator: torch.Generator, *, with_fixed: bool = False
    ) -> GroupElement:
        """A random group element: one permutation (index tensor) per name.

        Args:
            params: tensors that the sizes are read from.
            generator: CPU generator.
            with_fixed: permute the fixed names too. That is no symmetry of the network, but UNF layers are
                equivariant to it.
        """
        return {
            name: torch.randperm(size, generator=generator)
            if with_fixed or name not in self.fixed
            else torch.arange(size)
            for name, size in self.sizes(params).items()
        }

    def apply(self, params: Mapping[str, Tensor], element: GroupElement) -> dict[str, Tensor]:
        """Permute every named axis by its permutation; trailing axes stay."""
        permuted = {}
        for parameter, names in self.axes.items():
            tensor = params[parameter]
            for axis, name in enumerate(names):
                tensor = tensor.index_select(axis, element[name].to(tensor.device))
            permuted[parameter] = tensor
        return permuted

    def permute(self, params: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]:
        """Apply a random symmetry; the fixed names stay."""
        return self.apply(params, self.draw(params, generator))

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON."""
        axes = {parameter: list(names) for parameter, names in self.axes.items()}
        return {"axes": axes, "fixed": sorted(self.fixed)}
