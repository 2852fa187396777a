"""Tensors of a spec and parameters of the network: merged axes are split, joined ones are cut."""

from collections.abc import Mapping, Sequence
from itertools import chain
from math import prod

import torch
from torch import Tensor

Views = Mapping[str, tuple[tuple[int, ...], ...]]
Cuts = Mapping[str, tuple[int, tuple[int, ...]]]

MAX_RANK = 64  # of a tensor of torch


class Layout:
    """How the tensors that a spec gives axes to lie in the parameters of the network.

    Args:
        tensors: names of the tensors that have axes.
        views: see ``PermutationSpec``.
        cuts: see ``PermutationSpec``.

    Raises:
        ValueError: a piece of ``cuts`` has no axes, or its axis or a length is out of range.
    """

    def __init__(self, tensors: Sequence[str], views: Views, cuts: Cuts) -> None:
        self.tensors = tuple(tensors)
        self.views = views
        self.cuts = cuts
        self.pieces: dict[str, tuple[str, ...]] = {}
        self.wholes: dict[str, str] = {}  # piece -> what it is cut from

        for name, (axis, lengths) in cuts.items():
            # files say so too, and a name has a mark for each axis
            if not 0 <= axis < MAX_RANK or any(length < 0 for length in lengths):
                raise ValueError(
                    f"cuts must have an axis from 0 to {MAX_RANK - 1} and lengths of at least 0, "
                    f"got {axis} and {lengths} for {name!r}."
                )
            pieces = names_of_pieces(name, axis, lengths)
            is_known = all(piece in self.tensors or piece in cuts for piece in pieces)
            if not is_known or name in self.tensors:
                raise ValueError(
                    f"where {name!r} is cut, axes must hold its pieces {list(pieces)} and not "
                    f"{name!r} itself, got axes of {list(tensors)}."
                )
            self.pieces[name] = pieces
            self.wholes.update(dict.fromkeys(pieces, name))

        owners = [self.owner(tensor) for tensor in self.tensors]
        self.parameters = tuple(dict.fromkeys(owners))

    def owner(self, name: str) -> str:
        """The parameter that a tensor, or a piece of one, is of."""
        while name in self.wholes:
            name = self.wholes[name]
        return name

    def slots(self, tensor: str, rank: int) -> tuple[int, ...]:
        """For each axis of a tensor, the axis of its parameter that it is a part of."""
        slots = tuple(range(rank))
        name: str | None = tensor
        while name is not None:
            if name in self.views:
                outer: list[int] = []
                for slot, factors in enumerate(self.views[name]):
                    outer.extend([slot] * len(factors))
                slots = tuple(outer[slot] for slot in slots)
            name = self.wholes.get(name)
        return slots

    def known_lengths(self, tensor: str) -> dict[int, int]:
        """The lengths of those axes of a tensor that views and cuts tell."""
        if tensor in self.views:
            return dict(enumerate(chain.from_iterable(self.views[tensor])))
        if tensor not in self.wholes:
            return {}

        whole = self.wholes[tensor]
        axis, lengths = self.cuts[whole]
        length = lengths[self.pieces[whole].index(tensor)]
        return {**self.known_lengths(whole), axis: length}

    def view(self, params: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors of parameters ``(*shape, *trailing)``.

        Raises:
            ValueError: the shape of a parameter does not fit its views or cuts.
        """
        viewed: dict[str, Tensor] = {}
        for parameter in self.parameters:
            self._collect(parameter, params[parameter], viewed)
        return {name: viewed[name] for name in self.tensors}

    def unview(self, viewed: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parameters of tensors: the inverse of ``view``."""
        return {parameter: self._assemble(parameter, viewed) for parameter in self.parameters}

    def shapes(self, viewed: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
        """The shapes of the parameters, of those of the tensors."""
        tensors = {name: torch.empty(shape, device="meta") for name, shape in viewed.items()}
        return {name: tuple(param.shape) for name, param in self.unview(tensors).items()}

    def _collect(self, name: str, tensor: Tensor, viewed: dict[str, Tensor]) -> None:
        shape = tuple(tensor.shape)
        if name in self.views:
            factors = self.views[name]
            rank = len(factors)
            if shape[:rank] != tuple(map(prod, factors)):
                raise ValueError(
                    f"the spec splits {name!r} into the factors {factors}, but its shape is "
                    f"{shape}."
                )
            # (*factors of every axis, *trailing)
            tensor = tensor.reshape(*chain.from_iterable(factors), *shape[rank:])

        if name not in self.cuts:
            viewed[name] = tensor
            return

        axis, lengths = self.cuts[name]
        shape = tuple(tensor.shape)
        if len(shape) <= axis or shape[axis] != sum(lengths):
            raise ValueError(
                f"the spec cuts axis {axis} of {name!r} into parts of {lengths}, but its shape is "
                f"{shape}."
            )
        for piece, part in zip(self.pieces[name], tensor.split(lengths, axis), strict=True):
            self._collect(piece, part, viewed)

    def _assemble(self, name: str, viewed: Mapping[str, Tensor]) -> Tensor:
        if name in self.cuts:
            axis, _ = self.cuts[name]
            parts = [self._assemble(piece, viewed) for piece in self.pieces[name]]
            tensor = torch.cat(parts, axis)
        else:
            tensor = viewed[name]

        if name not in self.views:
            return tensor
        factors = self.views[name]
        num_split = sum(map(len, factors))
        return tensor.reshape(*map(prod, factors), *tensor.shape[num_split:])


def names_of_pieces(name: str, axis: int, lengths: Sequence[int]) -> tuple[str, ...]:
    """What the pieces of a tensor are called.

    >>> names_of_pieces("head", 1, (5, 7))
    ('head[:|0:5]', 'head[:|5:12]')
    """
    names = []
    start = 0
    for length in lengths:
        names.append(f"{name}[{':|' * axis}{start}:{start + length}]")
        start += length
    return tuple(names)
