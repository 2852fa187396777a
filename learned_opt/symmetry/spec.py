"""Permutation specs: which axes of which parameters may be permuted together.

A spec names every axis of every parameter. Axes that share a name are permuted by the same
permutation; a name in ``fixed`` belongs to axes whose indices mean something (pixels, classes,
kernel positions), which the symmetries of the network leave alone.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from learned_opt.core import tree
from learned_opt.symmetry.layout import Layout

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
        cuts: parameter name -> an axis and the lengths of its parts, where each part permutes by
            its own permutation, as those of a concatenation do. ``axes`` then has the names of the
            pieces instead: ``{"head": (1, (5, 7))}`` makes ``"head[:|0:5]"`` and
            ``"head[:|5:12]"`` of a parameter of shape (m, 12). The axis is counted after ``views``;
            pieces may have views and cuts themselves.

    Raises:
        ValueError: ``fixed`` holds a name that no axis has, ``folded`` one that is not fixed or
            has no known length, a length is negative, or a view or cut does not fit the axes.

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
    cuts: Mapping[str, tuple[int, tuple[int, ...]]] = field(default_factory=dict)
    layout: Layout = field(init=False, repr=False, compare=False)

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
        cuts = {name: (axis, tuple(lengths)) for name, (axis, lengths) in self.cuts.items()}
        object.__setattr__(self, "cuts", cuts)
        object.__setattr__(self, "layout", Layout(list(axes), views, cuts))

        unknown = sorted(set(self.fixed) - set(self.names))
        if unknown:
            raise ValueError(
                f"fixed must hold names of axes, got {unknown}; axes are named {list(self.names)}."
            )
        unknown = sorted(set(self.folded) - (set(self.fixed) & set(self.fixed_sizes)))
        if unknown:
            raise ValueError(f"folded must hold fixed names whose length is known, got {unknown}.")

        self._check_lengths()

    def _check_lengths(self) -> None:
        for name, size in self.fixed_sizes.items():
            if size < 0:
                raise ValueError(f"fixed_sizes must not be negative, got {size} for {name!r}.")

        for parameter, factors in self.views.items():
            if parameter in self.cuts:
                continue  # the pieces have its axes
            if parameter not in self.axes:
                raise ValueError(f"views must be of tensors that have axes, got {parameter!r}.")
            lengths = list(chain.from_iterable(factors))
            if len(lengths) > len(self.axes[parameter]) or min(lengths, default=0) < 0:
                raise ValueError(
                    f"views of {parameter!r} must split into lengths of its axes "
                    f"{self.axes[parameter]}, got {factors}."
                )

    def __hash__(self) -> int:
        parts = (self.axes.items(), self.views.items(), self.cuts.items())
        return hash((*map(tuple, parts), self.fixed, self.folded))

    @property
    def names(self) -> tuple[str, ...]:
        """Permutation names in order of first appearance."""
        return tuple(dict.fromkeys(chain.from_iterable(self.axes.values())))

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters, which are those of ``axes`` where none is cut in pieces.

        >>> axes = {"head[:|0:2]": ("y", "a"), "head[:|2:5]": ("y", "b")}
        >>> PermutationSpec(axes, cuts={"head": (1, (2, 3))}).parameters
        ('head',)
        """
        return self.layout.parameters

    def slots(self, tensor: str) -> tuple[int, ...]:
        """For each axis of a tensor of ``axes``, the axis of its parameter that it is a part of.

        >>> PermutationSpec({"w": ("g", "h", "x")}, views={"w": ((4, 8), (3,))}).slots("w")
        (0, 0, 1)
        """
        return self.layout.slots(tensor, len(self.axes[tensor]))

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

    def part(self, parameters: Collection[str]) -> "PermutationSpec":
        """The spec of some of the parameters; those that it does not know are left out.

        >>> spec = PermutationSpec({"weight": ("hidden", "pixel"), "bias": ("hidden",)}, {"pixel"})
        >>> spec.part(["bias"]).axes
        {'bias': ('hidden',)}
        """

        def of_parts(entries: Mapping[str, Any]) -> dict[str, Any]:
            owner = self.layout.owner
            return {name: entry for name, entry in entries.items() if owner(name) in parameters}

        axes = of_parts(self.axes)
        names = set(chain.from_iterable(axes.values()))
        return PermutationSpec(
            axes,
            names.intersection(self.fixed),
            of_parts(self.views),
            {name: reason for name, reason in self.reasons.items() if name in names},
            {name: size for name, size in self.fixed_sizes.items() if name in names},
            names.intersection(self.folded),
            of_parts(self.cuts),
        )

    def sizes(self, params: Mapping[str, Tensor]) -> dict[str, int]:
        """Length of the axes of each name.

        Args:
            params: tensors of shape ``(*axes, ...)``; trailing axes beyond the spec (channels) are
                ignored.

        Raises:
            ValueError: the parameters do not fit; says which key or axis disagrees.
        """
        keys = tree.difference(list(self.parameters), list(params))
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
        return self.layout.view(params)

    def unview(self, viewed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Merge the axes that ``view`` split."""
        return self.layout.unview(viewed)

    def permute(
        self, params: Mapping[str, Tensor], generator: torch.Generator
    ) -> dict[str, Tensor]:
        """Apply a random symmetry; the fixed names stay."""
        return self.apply(params, self.draw(params, generator))

    def as_dict(self) -> dict[str, Any]:
        """Plain containers, for JSON; ``PermutationSpec(**spec.as_dict())`` is the same spec."""
        axes = {parameter: list(names) for parameter, names in self.axes.items()}
        views = {parameter: list(map(list, factors)) for parameter, factors in self.views.items()}
        plain: dict[str, Any] = {
            "axes": axes,
            "fixed": sorted(self.fixed),
            "views": views,
            "reasons": dict(self.reasons),
            "fixed_sizes": dict(self.fixed_sizes),
        }
        if self.cuts:  # files of specs without any stay as they were
            plain["cuts"] = {name: [axis, [*parts]] for name, (axis, parts) in self.cuts.items()}
        return plain
