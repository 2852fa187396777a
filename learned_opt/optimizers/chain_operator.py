"""Operators on lists of tensors of all chains, for which a batch of chains is more chains."""

from collections.abc import Callable

import torch
from torch import Tensor

from learned_opt.unf.chain_batch import more_chains

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
    operator = getattr(torch.ops.learned_opt, name).default
    library.impl(name, on_cpu, "CPU")
    torch.library.register_fake(f"learned_opt::{name}", fake, lib=library)
    torch.library.register_vmap(
        f"learned_opt::{name}", more_chains(operator, NUM_LISTS), lib=library
    )
