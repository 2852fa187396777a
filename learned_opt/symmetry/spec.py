"""Permutation specs: which axes of which parameters may be permuted together.

A spec names every axis of every parameter. Axes that share a name are permuted by the same
permutation; a name in ``fixed`` belongs to axes whose indices mean something (pixels, classes,
kernel positions), which the symmetries of the network leave alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from math import prod
from typing import Any

import torch
from torch import Tensor

from learned_opt.core import tree

GroupElement = dict[str, Tensor]


@dataclass(frozen=True)
class PermutationSpec:
    """Permutation names of the axes of a weight space.

    Args:
        axes: parameter name -> one permutation name per axis, e.g.
            ``{"0.weight": ("hidden", "pixel"), "0.bias": ("hidden",)}``.
        fixed: names whose indices mean something; no symmetry permutes them.
        views: parameter name -> factors of each of its axes, where one is merged:
            ``{"weight_ih": ((4, 8), (3,))}`` names three axes (gate, hidden, input) of a parameter
            of shape (32, 3).
        reasons: why a name is fixed, for people; takes no part in comparisons.
        fixed_sizes: lengths of the axes of fixed names, where known (``measure``); takes no part in
            comparisons.
        folded: fixed names that layers read as channels, one for each index, rather than as axes.

    Raises:
        ValueError: ``fixed`` holds a name that no axis has, or ``folded`` one that is not fixed or
            has no known length.

    Source: Zhou et al. 2024 (arXiv 2402.05232), section 3, there called a "permutation
    specification".

    >>> spec = PermutationSpec({"weight": ("hidden", "pixel"), "bias": ("hidden",)}, {"pixel"})
    >>> spec.names
    ('hidden', 'pixel')
    >>> params = {"weight": torch.tensor([[1, 2], [3, 4]]), "bias": torch.tensor([5, 6])}
    >>> spec.sizes(params)
    {'hidden': 2, 'pixel': 2}
    >>> spec.apply(params, {"hidden": torch.tensor([1, 0]), "pixel": torch.tensor([0, 1])})
    {'weight': tensor([[3, 4],
            [1, 2]]), 'bias': tensor([6, 5])}
    """

    axes: Mapping[str, tuple[str, ...]]
    fixed: Collection[str] = ()
    views: Mapping[str, tuple[tuple[int, ...], ...]] = field(default_factory=dict)
    reasons: Mapping[str, str] = field(default_factory=dict, compare=False)
    fixed_sizes: Mapping[str, int] = field(default_factory=dict, compare=False)
    folded: Collection[str] = ()

    def __post_init__(self) -> None:
        # plain dicts: the compiler cannot look into read-only proxies
        axes = {parameter: tuple(names) for parameter, names in self.axes.items()}
        views = {parameter: tuple(map(tuple, factors)) for parameter, factors in self.views.items()}
        object.__setattr__(self, "axes", axes)
        object.__setattr__(self, "views", views)
        object.__setattr__(self, "reasons", dict(self.reasons))
        object.__setattr__(self, "fixed", frozenset(self.fixed))
        object.__setattr__(self, "fixed_sizes", dict(self.fixed_sizes))
        object.__setattr__(self, "folded", frozenset(self.folded))

        unknown = sorted(set(self.fixed) - set(self.names))
        if unknown:
            raise ValueError(
                f"fixed must hold names of axes, got {unknown}; axes are named {list(self.names)}."
            )
        unknown = sorted(set(self.folded) - (set(self.fixed) & set(self.fixed_sizes)))
        if unknown:
            raise ValueError(f"folded must hold fixed names whose length is known, got {unknown}.")

    def __hash__(self) -> int:
        return hash((tuple(self.axes.items()), self.fixed, tuple(self.views.items()), self.folded))

    @property
    def names(self) -> tuple[str, ...]:
        """Permutation names in order of first appearance."""
        return tuple(dict.fromkeys(chain.from_iterable(self.axes.values())))

    def occurrences(self, name: str) -> list[tuple[str, int]]:
        """The parameters and axes that have a name.

        >>> spec = PermutationSpec({"weight": ("hidden", "pixel"), "bias": ("hidden",)})
        >>> spec.occurrences("hidden")
        [('weight', 0), ('bias', 0)]
        """
        pairs = []
        for parameter, names in self.axes.items():
            pairs.extend((parameter, axis) for axis, other in enumerate(names) if other == name)
        return pairs

    def measure(self, params: Mapping[str, Tensor]) -> "PermutationSpec":
        """The same spec, knowing how long the axes of its fixed names are.

        Raises:
            ValueError: the parameters do not fit, as in ``sizes``.
        """
        sizes = self.sizes(params)
        fixed_sizes = {name: size for name, size in sizes.items() if name in self.fixed}
        return replace(self, fixed_sizes=fixed_sizes)

    def sizes(self, params: Mapping[str, Tensor]) -> dict[str, int]:
        """Length of the axes of each name.

        Args:
            params: tensors of shape ``(*axes, ...)``; trailing axes beyond the spec (channels) are
                ignored.

        Raises:
            ValueError: the parameters do not fit; says which key or axis disagrees.
        """
        keys = tree.difference(list(self.axes), list(params))
        if keys:  # such as "missing: a"
            raise ValueError(f"the spec does not fit the parameters: {keys}.")

        sizes: dict[str, int] = {}
        first_axes: dict[str, str] = {}
        viewed = self.view(params)
        for parameter, names in self.axes.items():
            shape = tuple(viewed[parameter].shape)
            if len(shape) < len(names):
                raise ValueError(
                    f"the spec gives {parameter!r} the axes {names}, but its shape is {shape}."
                )
            for axis, name in enumerate(names):
                size = sizes.setdefault(name, shape[axis])
                first_axis = first_axes.setdefault(name, f"axis {axis} of {parameter!r}")
                if size != shape[axis]:
                    raise ValueError(
                        f"axis {axis} of {parameter!r} is named {name!r} and has size "
                        f"{shape[axis]}, but {first_axis} has that name and size {size}."
                    )
        return sizes

    def draw(
        self, params: Mapping[str, Tensor], generator: torch.Generator, *, with_fixed: bool = False
    ) -> GroupElement:
        """A random group element: one permutation (index tensor) per name.

        Args:
            params: tensors that the sizes are read from.
            generator: CPU generator.
            with_fixed: permute the fixed names too. That is no symmetry of the network, but UNF
                layers are equivariant to it.
        """
        element: GroupElement = {}
        for name, size in self.sizes(params).items():
            if with_fixed or name not in self.fixed:
                element[name] = torch.randperm(size, generator=generator)
            else:
                element[name] = torch.arange(size)
        return element

    def apply(self, params: Mapping[str, Tensor], element: GroupElement) -> dict[str, Tensor]:
        """Permute every named axis by its permutation; trailing axes stay."""
        permuted = self.view(params)
        for parameter, names in self.axes.items():
            for axis, name in enumerate(names):
                index = element[name].to(permuted[parameter].device)
                permuted[parameter] = permuted[parameter].index_select(axis, index)
        return self.unview(permuted)

    def view(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Split the merged axes, so that every axis of the spec is an axis of the tensor.

        Trailing axes beyond the spec stay as they are.

        Raises:
            ValueError: a parameter's shape is not the product of its factors.
        """
        viewed = {parameter: params[parameter] for parameter in self.axes}
        for parameter, factors in self.views.items():
            shape = tuple(params[parameter].shape)
            rank = len(factors)
            if shape[:rank] != tuple(map(prod, factors)):
                raise ValueError(
                    f"the spec splits {parameter!r} into the factors {factors}, but its shape is "
                    f"{shape}."
                )
            # (*factors of every axis, *trailing)
            split = [*chain.from_iterable(factors), *shape[rank:]]
            viewed[parameter] = params[parameter].reshape(*split)
        return viewed

    def unview(self, viewed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Merge the axes that ``view`` split."""
        params = dict(viewed)
        for parameter, factors in self.views.items():
            num_split = sum(map(len, factors))
            trailing = viewed[parameter].shape[num_split:]
            params[parameter] = viewed[parameter].reshape(*map(prod, factors), *trailing)
        return params

    def permute(
        self, params: Mapping[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Apply a random symmetry; the fixed names stay."""
        return self.apply(params, self.draw(params, generator))

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON; ``PermutationSpec(**spec.as_dict())`` is the same spec."""
        axes = {parameter: list(names) for parameter, names in self.axes.items()}
        views = {parameter: list(map(list, factors)) for parameter, factors in self.views.items()}
        return {
            "axes": axes,
            "fixed": sorted(self.fixed),
            "views": views,
            "reasons": dict(self.reasons),
            "fixed_sizes": dict(self.fixed_sizes),
        }
