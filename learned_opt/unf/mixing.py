"""Channel mixing, the one place where equivariant layers multiply.

Legend: K sources, D targets, C_in / C_out channels.
"""

from itertools import compress
from math import sqrt

import torch
from torch import Tensor

from learned_opt.unf.plan import Group
from learned_opt.unf.reading import Reducer, total

INIT_GAINS = {"lecun": 1.0, "he": sqrt(2.0), "zero": 0.0}


def gain(init: str) -> float:
    """Standard deviation of initial weights, in units of sqrt(1 / fan_in).

    Raises:
        ValueError: an unknown init.

    >>> gain("lecun"), gain("zero")
    (1.0, 0.0)
    """
    if init not in INIT_GAINS:
        raise ValueError(f"init must be one of {sorted(INIT_GAINS)}, got {init!r}.")
    return INIT_GAINS[init]


def matmul(tensor: Tensor, matrix: Tensor) -> Tensor:
    """``tensor @ matrix`` as one 2-D product.

    So vmap over both makes one batched product of few large blocks.
    """
    rows = tensor.reshape(-1, tensor.shape[-1])  # (entries, C_in)
    return (rows @ matrix).reshape(*tensor.shape[:-1], matrix.shape[-1])


def mix(sources: list[Tensor], weight: Tensor, shared: Tensor | None) -> Tensor:
    """All sources into all targets, one matrix product.

    Args:
        sources: tensors ``(*kept, C)`` or, where folded axes are channels, ``(*kept, F C)``;
            sum of F = K.
        weight: ``(K, C_in, D, C_out)``, C_in = C + C_shared.
        shared: channels ``(C_shared,)`` that are constant over all entries, or None.

    Returns:
        Tensor: ``(*kept, D, C_out)``.
    """
    num_shared = 0 if shared is None else shared.shape[0]
    channels = weight.shape[1] - num_shared
    matrix = weight[:, :channels].flatten(0, 1).flatten(1)  # (K C, D C_out)
    stacked = sources[0] if len(sources) == 1 else torch.cat(sources, -1)  # (*kept, K C)
    mixed = matmul(stacked, matrix).unflatten(-1, weight.shape[-2:])

    if shared is None:
        return mixed
    return mixed + torch.einsum("kcdo,c->do", weight[:, channels:], shared)


def mix_group(group: Group, weight: Tensor, read: Reducer, shared: Tensor | None) -> Tensor:
    """All sources of a group into all of its targets.

    Args:
        group: of a plan.
        weight: ``(K, C_in, D, C_out)``.
        read: the inputs. Those that were never written come mixed already, as dots.
        shared: as in ``mix``.

    Returns:
        Tensor: ``(*kept, D, C_out)``.
    """
    unwritten = [read.is_unwritten(source) for source in group.sources]
    if not any(unwritten):
        return mix([read(source) for source in group.sources], weight, shared)

    terms = []
    for source in compress(group.sources, unwritten):
        terms.append(read.dots(source).unflatten(-1, weight.shape[2:]))
    rows = [row for row, is_unwritten in enumerate(unwritten) if not is_unwritten]
    if rows:
        written = [read(group.sources[row]) for row in rows]
        terms.append(mix(written, weight[rows], shared))
    return total(terms)
