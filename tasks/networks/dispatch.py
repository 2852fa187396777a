"""Batches in which every example uses a matrix of its own, picked by index out of a stack.

Legend: B examples, G matrices in the stack, A groups of the batch, C slots of a group, I inputs,
O outputs.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor
from torch.fx.experimental.proxy_tensor import get_proxy_mode


class Dispatch(NamedTuple):
    """A batch sorted into groups that use the same matrix.

    The outputs of the batch are ``combine(pack(inputs) @ stack[used].mT)``.

    Args:
        used: ``(A,)`` index into the stack for each group.
        slots: ``(B,)`` slot of each example among the A * C of all groups; None when each example
            is a group.
        capacity: C, the slots of each group.
    """

    used: Tensor
    slots: Tensor | None = None
    capacity: int = 1

    def pack(self, inputs: Tensor) -> Tensor:
        """``(B, I) -> (A, C, I)``, zeros in slots without an example."""
        if self.slots is None:
            return inputs.unsqueeze(1)

        num_slots = len(self.used) * self.capacity
        empty = inputs.new_zeros(num_slots, inputs.shape[-1])
        return empty.index_copy(0, self.slots, inputs).unflatten(0, (-1, self.capacity))

    def combine(self, outputs: Tensor) -> Tensor:
        """``(A, C, O) -> (B, O)``, without the slots that hold no example."""
        if self.slots is None:
            return outputs.squeeze(1)
        return outputs.flatten(0, 1)[self.slots]


def dispatch(index: Tensor, *others: Tensor) -> Dispatch:
    """Group the examples by the matrix that they use; the outputs do not depend on how.

    A plain eager batch is grouped, so that a matrix is read once and multiplies many examples.
    Groups have one size, the mean number of examples for each matrix in use: smaller ones are
    padded, larger ones split. Where numbers of examples cannot be known (under ``torch.func``
    transforms and ``torch.compile``), each example is its own group.

    Args:
        index: ``(B,)`` integers in ``[0, G)``.
        others: inputs and parameters of the computation; they tell whether it is transformed.

    >>> groups = dispatch(torch.tensor([2, 0, 2]))
    >>> groups.used.tolist(), groups.capacity
    ([0, 2], 2)
    """
    if is_transformed(index, *others):
        return Dispatch(index)

    used, matrix_of, counts = torch.unique(index, return_inverse=True, return_counts=True)
    # with the mean as the size of a group, splitting and padding add at most one slot per example
    # and one group per matrix
    capacity = max(1, -(-len(index) // max(1, len(used))))
    groups = (counts + capacity - 1).div(capacity, rounding_mode="floor")

    # rank of each example among those of its matrix
    order = matrix_of.argsort()
    first = counts.cumsum(0) - counts
    positions = torch.arange(len(index), device=index.device)
    rank = torch.empty_like(order)
    rank[order] = positions - first[matrix_of[order]]

    first_group = groups.cumsum(0) - groups
    slots = first_group[matrix_of] * capacity + rank
    return Dispatch(used.repeat_interleave(groups), slots, capacity)


def is_transformed(*tensors: Tensor) -> bool:
    """Whether values cannot be looked at: under ``torch.compile``, a trace or ``torch.func``."""
    if torch.compiler.is_compiling() or get_proxy_mode() is not None:
        return True
    return any(map(is_functorch_wrapped_tensor, tensors))


def refuse_nonfinite(name: str, inputs: Tensor, *others: Tensor) -> None:
    """Refuse NaN, which belongs to no cell and to no branch, and infinity.

    Where values cannot be looked at, NaN passes into the output instead.

    Args:
        name: what to call the inputs in the message.
        inputs: ``(B, I)``.
        others: further tensors of the computation; they tell whether it is transformed.

    Raises:
        ValueError: an entry is NaN or infinite.
    """
    if is_transformed(inputs, *others):
        return
    finite = inputs.isfinite()  # (B, I)
    if finite.all():
        return

    example, entry = (~finite).nonzero()[0].tolist()
    value = inputs[example, entry].item()
    raise ValueError(
        f"{name} must be finite to be routed, got {value} in entry {entry} of example {example}."
    )
