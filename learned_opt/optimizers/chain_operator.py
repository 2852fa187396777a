"""Operators on lists of tensors of all chains, for which a batch of chains is more chains."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from learned_opt.unf import fused

NUM_LISTS = 7  # of tensors ``(M, ...)``, the first arguments


def register(
    library: torch.library.Library,
    name: str,
    on_cpu: Callable[..., list[Tensor]],
    fake: Callable[..., list[Tensor]],
) -> None:
    """Give an operator that is defined already what it does.

    Args:
        library: in which it is defined.
        name: of the operator, without the namespace.
        on_cpu: computes its outputs ``(M, ...)``.
        fake: gives outputs of their shapes.
    """

    def batched(info: Any, in_dims: Any, *arguments: Any) -> tuple[list[Tensor], list[int]]:
        folded = []
        for tensors, dims in zip(arguments[:NUM_LISTS], in_dims, strict=False):
            folded.append(fused.fold_batch(tensors, dims, info.batch_size))

        operator = getattr(torch.ops.learned_opt, name).default
        outputs = []
        for output in operator(*folded, *arguments[NUM_LISTS:]):
            outputs.append(output.unflatten(0, (info.batch_size, -1)))
        return outputs, [0] * len(outputs)

    library.impl(name, on_cpu, "CPU")
    torch.library.register_fake(f"learned_opt::{name}", fake, lib=library)
    torch.library.register_vmap(f"learned_opt::{name}", batched, lib=library)
