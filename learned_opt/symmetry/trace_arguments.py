"""The arguments of a trace: tensors without numbers for parameters, examples for inputs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._pytree import tree_flatten, tree_unflatten

Precision = Callable[[Tensor], Tensor]  # a copy, perhaps in another type


def without_numbers(params: Mapping[str, Tensor], precision: Precision) -> dict[str, Tensor]:
    """Tensors of the shapes of parameters that take no memory, on the devices of these.

    Operations that mix them with real tensors give such tensors again; those of real tensors
    alone, such as counted positions, are computed.

    >>> params = without_numbers({"w": torch.zeros(2, 3)}, Tensor.double)
    >>> product = torch.ones(1, 2, dtype=torch.float64) @ params["w"]
    >>> type(product).__name__, tuple(product.shape)
    ('FakeTensor', (1, 3))
    """
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    fakes = {}
    with mode:
        for name, param in params.items():
            one = torch.empty(1, dtype=param.dtype, device=param.device)
            fakes[name] = precision(one).new_empty(param.shape)
    return fakes


class Examples:
    """Arguments of a call: their tensors apart from all else, which counts as constant.

    Args:
        args: of the call, trees of tensors and other objects.
        kwargs: by name.
    """

    def __init__(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        self.leaves, self.structure = tree_flatten((tuple(args), dict(kwargs)))
        self.numbers = [i for i, leaf in enumerate(self.leaves) if isinstance(leaf, Tensor)]

    def tensors(self, precision: Precision) -> list[Tensor]:
        """Copies of the tensors."""
        return [precision(self.leaves[number]) for number in self.numbers]

    def call(self, tensors: Sequence[Tensor]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments, with these tensors.

        >>> examples = Examples([torch.zeros(2)], {"flag": True})
        >>> examples.call([torch.ones(2)])
        ((tensor([1., 1.]),), {'flag': True})
        """
        leaves = list(self.leaves)
        for number, tensor in zip(self.numbers, tensors, strict=True):
            leaves[number] = tensor
        return tree_unflatten(leaves, self.structure)
