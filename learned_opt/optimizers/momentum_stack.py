"""Momenta, features and pointwise layers of an inner step, of all chains in one call, on the CPU.

It has no gradient. The outputs of the layers, the *rows*, are written only where the caller wants
them; otherwise what it reads of them is.

Legend: M chains, N entries of a tensor, C channels, L layers, Q columns.
"""

import ctypes
import logging
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from learned_opt.core import native
from learned_opt.optimizers import chain_operator
from learned_opt.optimizers.features import MOMENTUM_DECAYS, Normalisation
from learned_opt.unf import fused

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("momentum_stack.cpp")
INCLUDES = (Path(__file__).with_name("momenta.h"), fused.DENSE)
MAX_RANK = 8
# what is wanted of a tensor
ROWS, DOTS, DOTS_AND_MEANS = range(3)


# defined at a lower level than torch.library.custom_op, whose checks cost 50 us of each call
_library_of_torch = torch.library.Library("learned_opt", "FRAGMENT")
_library_of_torch.define(
    "momentum_stack(Tensor[] params, Tensor[] grads, Tensor[] momenta, Tensor[] further, "
    "Tensor[] weights, Tensor[] biases, Tensor[] columns, int[] wanted, "
    "bool joint, float epsilon, bool scalars) -> Tensor[]",
    tags=(torch.Tag.needs_fixed_stride_order,),
)


def momentum_stack(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    further: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    columns: Sequence[Tensor],
    wanted: Sequence[int],
    normalisation: Normalisation,
) -> list[Tensor]:
    """Move momenta and run pointwise layers, each with a ReLU behind it, on what they say.

    Args:
        params: ``(M, *shape)``.
        grads: ``(M, *shape)``.
        momenta: ``(M, 6, *shape)``.
        further: channels ``(M, E, *shape)`` beside the eight of ``features.tensor_features``, as
            they are; empty where there are none.
        weights: of the layers, ``(M, C_l, C_{l+1})``, 8 + E channels in.
        biases: ``(M, C_{l+1})``.
        columns: ``(M, C_L, Q)`` for each tensor of which dots are wanted.
        wanted: of each tensor, ``ROWS``, ``DOTS`` (products of rows and columns) or
            ``DOTS_AND_MEANS``.
        normalisation: of the eight features.

    Returns:
        list[Tensor]: the moved momenta; then for each tensor rows ``(M, *shape, C_L)`` or dots
        ``(M, Q, *shape)``, these followed by the means of the rows over each axis
        ``(M, *other axes, C_L)`` where they are wanted.
    """
    tensors = (params, grads, momenta, further, weights, biases, columns)
    kind = normalisation
    operator = torch.ops.learned_opt.momentum_stack.default
    return operator(*map(list, tensors), list(wanted), kind.joint, kind.epsilon, kind.scalars)


def _on_cpu(
    params, grads, momenta, further, weights, biases, columns, wanted, joint, epsilon, scalars
) -> list[Tensor]:
    kernel = _kernel(params[0].dtype, tuple(weight.shape for weight in weights))
    outputs = _allocate(params, momenta, weights, columns, wanted)

    # copies need names that outlive the call, since C holds no reference
    matrices = []
    for weight, bias in zip(weights, biases, strict=True):
        matrices += [by_chain(weight), by_chain(bias)]
    per_tensor = [_contiguous(each) for each in (params, grads, momenta, further, columns)]

    layers = []
    for matrix in matrices:
        layers += [matrix.data_ptr(), matrix.stride(0)]
    addresses = []
    for tensors in (*per_tensor, outputs):
        addresses += [tensor.data_ptr() for tensor in tensors]
    num_columns = tuple(column.shape[2] for column in columns)
    sizes = _sizes(tuple(param.shape[1:] for param in params), tuple(wanted), num_columns)

    kernel(
        len(params[0]),
        len(params),
        (ctypes.c_int64 * len(layers))(*layers),
        sizes,
        (ctypes.c_void_p * len(addresses))(*addresses),
        joint,
        epsilon,
        scalars,
        torch.get_num_threads(),
    )
    return outputs


@cache
def _kernel(dtype: torch.dtype, shapes: tuple[torch.Size, ...]) -> Callable[..., None]:
    """The C function for layers of these shapes ``(M, C_l, C_{l+1})``."""
    library = _library(dtype, shapes)
    if library is None:
        raise RuntimeError("momentum_stack needs a kernel: ask has_kernel before.")

    log.info("forward steps run in a kernel, vectors of %d bits.", library.vector_bits())
    function = library.momentum_stack
    int64s = ctypes.POINTER(ctypes.c_int64)
    pointers = ctypes.POINTER(ctypes.c_void_p)
    numbers = [ctypes.c_int64, ctypes.c_int64, int64s, int64s, pointers]
    options = [ctypes.c_int, ctypes.c_double, ctypes.c_int, ctypes.c_int]
    function.argtypes = numbers + options
    function.restype = None
    return function


@cache
def _sizes(
    shapes: tuple[torch.Size, ...], wanted: tuple[int, ...], num_columns: tuple[int, ...]
) -> ctypes.Array[ctypes.c_int64]:
    """What the kernel must know of each tensor: wanted, entries, axes, columns, lengths of axes."""
    remaining = iter(num_columns)
    sizes = []
    for shape, kind in zip(shapes, wanted, strict=True):
        columns = 0 if kind == ROWS else next(remaining)
        padding = [0] * (MAX_RANK - len(shape))
        sizes += [kind, shape.numel(), len(shape), columns, *shape, *padding]
    return (ctypes.c_int64 * len(sizes))(*sizes)


def _fake(params, grads, momenta, further, weights, biases, columns, wanted, *normalisation):
    return _allocate(params, momenta, weights, columns, wanted)


chain_operator.register(_library_of_torch, "momentum_stack", _on_cpu, _fake)


def has_kernel(like: Tensor, weights: Sequence[Tensor]) -> bool:
    """Whether ``momentum_stack`` runs on tensors like this one.

    Args:
        like: a parameter.
        weights: of the layers, ``(C_l, C_{l+1})``.
    """
    if not may_run(like) or weights[0].dtype != like.dtype:
        return False
    return _library(like.dtype, [weight.shape for weight in weights]) is not None


def may_run(like: Tensor) -> bool:
    """Whether kernels of forward steps take tensors like this one at all."""
    is_known = like.device.type == "cpu" and like.dtype in fused.C_TYPES
    return is_known and not torch.is_autocast_enabled("cpu")


def _library(dtype: torch.dtype, shapes: Sequence[torch.Size]) -> ctypes.CDLL | None:
    widths = [shapes[0][-2], *(shape[-1] for shape in shapes)]
    return native.load(SOURCE, defines(dtype, widths), INCLUDES)


def defines(dtype: torch.dtype, widths: Sequence[int]) -> tuple[tuple[str, str], ...]:
    """The preprocessor names that a kernel on momenta is compiled with."""
    return *fused.defines(dtype, widths), ("DECAYS", ",".join(map(str, MOMENTUM_DECAYS)))


def _contiguous(tensors: Sequence[Tensor]) -> list[Tensor]:
    return [tensor.contiguous() for tensor in tensors]


def by_chain(tensor: Tensor) -> Tensor:
    """The tensor, or a copy where the entries of a chain do not lie side by side in their order."""
    if tensor.is_contiguous() or tensor[0].is_contiguous():
        return tensor
    return tensor.contiguous()


def _allocate(
    params: Sequence[Tensor],
    momenta: Sequence[Tensor],
    weights: Sequence[Tensor],
    columns: Sequence[Tensor],
    wanted: Sequence[int],
) -> list[Tensor]:
    channels = weights[-1].shape[2]
    remaining = iter(columns)
    outputs = [tensor.new_empty(tensor.shape) for tensor in momenta]

    for param, kind in zip(params, wanted, strict=True):
        num_chains, *shape = param.shape
        if kind == ROWS:
            outputs.append(param.new_empty(num_chains, *shape, channels))
            continue
        outputs.append(param.new_empty(num_chains, next(remaining).shape[2], *shape))
        if kind == DOTS_AND_MEANS:
            for axis in range(len(shape)):
                others = shape[:axis] + shape[axis + 1 :]
                outputs.append(param.new_empty(num_chains, *others, channels))

    return outputs
