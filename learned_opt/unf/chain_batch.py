"""The vmap rule of operators on lists of tensors of all chains: a batch of chains is more chains.

Legend: M chains.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor

Rule = Callable[..., tuple[list[Tensor], list[int]]]


def more_chains(operator: Callable[..., list[Tensor]], num_lists: int) -> Rule:
    """The rule, for ``register_vmap``.

    Args:
        operator: takes lists of tensors ``(M, ...)`` and then numbers, and returns such a list.
        num_lists: how many lists it takes.
    """

    def rule(info: Any, in_dims: Any, *arguments: Any) -> tuple[list[Tensor], list[int]]:
        folded = []
        for tensors, dims in zip(arguments[:num_lists], in_dims, strict=False):
            folded.append(_folded(tensors, dims, info.batch_size))

        outputs = []
        for output in operator(*folded, *arguments[num_lists:]):
            outputs.append(output.unflatten(0, (info.batch_size, -1)))
        return outputs, [0] * len(outputs)

    return rule


def _folded(tensors: Sequence[Tensor], dims: Sequence[int | None], batch_size: int) -> list[Tensor]:
    """``(M, ...)`` with a batch axis somewhere, or none, to ``(batch M, ...)``, of every tensor."""
    folded = []
    for tensor, dim in zip(tensors, dims, strict=True):
        if dim is None:
            batched = tensor.expand(batch_size, *tensor.shape)
        else:
            batched = tensor.movedim(dim, 0)
        folded.append(batched.flatten(0, 1))
    return folded
