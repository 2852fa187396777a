"""Batches in which every example uses a matrix of its own, picked by index out of a stack.

Legend: B examples, G matrices in the stack, A groups of the batch, C places in a group.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode


class Dispatch(NamedTuple):
    """A batch sorted into groups that use the same matrix: ``combine(pack(inputs) @ stack[used].mT)``.

    Args:
        used: ``(A,)`` index into the stack for each group.
        places: ``(B,)`` place of each example among the A * C of all groups; None when each example is a group.
        capacity: C, the places in each group.
    """

    used: Tensor
    places: Tensor | None = None
    capacity: int = 1

    def pack(self, inputs: Tensor) -> Tensor:
        """``(B, n) -> (A, C, n)``, zeros in places without an example."""
        if self.places is None:
            return inputs.unsqueeze(1)
        empty = inputs.new_zeros(len(self.used) * self.capacity, inputs.shape[-1])
        return empty.index_copy(0, self.places, inputs).unflatten(0, (-1, self.capacity))

    def combine(self, outputs: Tensor) -> Tensor:
        """``(A, C, n) -> (B, n)``."""
        return outputs.squeeze(1) if self.places is None else outputs.flatten(0, 1)[self.places]


def dispatch(index: Tensor, *others: Tensor) -> Dispatch:
    """Group the examples by the matrix that they use; the result of the batch does not depend on how.

    A plain eager batch is grouped, so that a matrix is read once and multiplies many examples. Groups have one size,
    the mean number of examples for each matrix in use: smaller ones are padded, larger ones split. Where numbers of
    examples cannot be known (under ``torch.func`` transforms and ``torch.compile``), each example is its own group.

    Args:
        index: ``(B,)`` integers in ``[0, G)``.
        others: the inputs and parameters of the computation; they tell whether it is being transformed.
    """
    if is_transformed(index, *others):
        return Dispatch(index)
    used, member, counts = torch.unique(index, return_inverse=True, return_counts=True)
    # with the mean as the size of a group, splitting and padding add at most one place per example and per matrix
    capacity = max(1, -(-len(index) // max(1, len(used))))
    groups = (counts + capacity - 1).div(capacity, rounding_mode="floor")
    order = member.argsort()
    rank = torch.empty_like(order)
    rank[order] = (
        torch.arange(len(index), device=index.device) - (counts.cumsum(0) - counts)[member[order]]
    )
    places = (groups.cumsum(0) - groups)[member] * capacity + rank
    return Dispatch(used.repeat_interleave(groups), places, capacity)


def is_transformed(*tensors: Tensor) -> bool:
    """Whether values cannot be looked at: under ``torch.compile``, a trace, or a transform of ``torch.func``."""
    traced = torch.compiler.is_compiling() or get_proxy_mode() is not None
    return traced or any(map(is_functorch_wrapped_tensor, tensors))


def refuse_nonfinite(name: str, inputs: Tensor, *others: Tensor) -> None:
    """NaN belongs to no cell and to no branch; where values cannot be looked at, it passes into the output instead.

    Args:
        name: of the inputs.
        inputs: ``(B, n)``.
        others: further tensors of the computation; they tell whether it is being transformed.

    Raises:
        ValueError: an entry is NaN or infinite.
    """
    if is_transformed(inputs, *others) or (finite := inputs.isfinite()).all():
        return
    example, entry = (~finite).nonzero()[0].tolist()
    value = inputs[example, entry].item()
    raise ValueError(
        f"{name} must be finite to be routed, got {value} in entry {entry} of example {example}."
    )
