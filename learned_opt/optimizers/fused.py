"""The step of a pointwise learned optimizer in place, for all tensors in one call, on the CPU.

Every number is read from memory twice and written once; the features and what is between the layers
stay in the cache.
"""

import ctypes
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from learned_opt.core import native
from learned_opt.optimizers.features import MOMENTUM_DECAYS, Normalisation
from learned_opt.unf import fused

SOURCE = Path(__file__).with_name("momentum_step.cpp")
INCLUDES = (Path(__file__).with_name("momenta.h"), fused.DENSE)


def momentum_step(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momentum: Sequence[Tensor],
    momenta: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    nominal: tuple[float, float, float],
    normalisation: Normalisation,
    rates: Sequence[tuple[float, float]],
) -> bool:
    """``p <- keep p - rate alpha (m + beta f(features))``, and the momenta and m moved before.

    Args:
        params: ``(*shape,)``, written to.
        grads: ``(*shape,)``.
        momentum: m ``(*shape,)``, written to.
        momenta: ``(6, *shape)``, written to.
        weights: of the layers of f, ``(C_l, C_{l+1})``, 8 channels in, 1 out.
        biases: ``(C_{l+1},)``.
        nominal: alpha, beta, and the decay gamma of m.
        normalisation: of the features.
        rates: (rate, keep) of each tensor.

    Returns:
        bool: False, and nothing is changed, where there is no kernel: not on the CPU, or no
        compiler.
    """
    library = _library(params[0], weights)
    if library is None:
        return False

    # the kernel sees memory, so a tensor in another order goes through a copy; copies need names
    # that outlive the call, since C holds no reference
    written = [_contiguous(tensors) for tensors in (params, momentum, momenta)]
    read = [_contiguous(tensors) for tensors in (grads, weights, biases)]

    count = len(params)
    int64s = ctypes.c_int64 * count
    doubles = ctypes.c_double * count
    library.momentum_step(
        ctypes.c_int64(count),
        int64s(*[tensor.numel() for tensor in params]),
        int64s(*[tensor.ndim for tensor in params]),
        fused.addresses(written[0]),
        fused.addresses(read[0]),
        fused.addresses(written[1]),
        fused.addresses(written[2]),
        doubles(*[rate for rate, _ in rates]),
        doubles(*[keep for _, keep in rates]),
        fused.addresses(read[1]),
        fused.addresses(read[2]),
        *map(ctypes.c_double, nominal),
        int(normalisation.joint),
        ctypes.c_double(normalisation.epsilon),
        int(normalisation.scalars),
        torch.get_num_threads(),
    )

    for copies, tensors in zip(written, (params, momentum, momenta), strict=True):
        _copy_back(copies, tensors)
    return True


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def _copy_back(copies: Sequence[Tensor], tensors: Sequence[Tensor]) -> None:
    """Write what the kernel left in copies to the tensors that they were made of."""
    for tensor, copy in zip(tensors, copies, strict=True):
        if copy is not tensor:
            tensor.copy_(copy)


def _library(like: Tensor, weights: Sequence[Tensor]) -> ctypes.CDLL | None:
    """The kernel compiled for a dtype and the widths of the layers, or None."""
    if like.device.type != "cpu" or like.dtype not in fused.C_TYPES:
        return None

    # widths and decays are constants of the compiled code: one library for each architecture
    widths = [weight.shape[0] for weight in weights]  # the last layer has one output
    decays = ",".join(map(str, MOMENTUM_DECAYS))
    defines = (*fused.defines(like.dtype, widths), ("DECAYS", decays))
    return native.load(SOURCE, defines, INCLUDES)
