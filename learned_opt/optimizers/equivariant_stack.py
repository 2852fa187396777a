"""Momenta, features and layers that mix tensors of an inner step, on the CPU, in one call.

It has no gradient. The layers are those of one plan; what they do is a program of
``unf.encoding``, of which the operator gets the key alone.

Legend: M chains, N entries of a tensor, C channels, L layers, G groups and T tensors of a plan.
"""

import ctypes
import hashlib
import logging
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from learned_opt.core import native
from learned_opt.optimizers import chain_operator, momentum_stack
from learned_opt.optimizers.features import NUM_TENSOR_FEATURES, Normalisation
from learned_opt.unf import fused

log = logging.getLogger(__name__)
SOURCE = Path(__file__).with_name("equivariant_stack.cpp")
LAYER = fused.DENSE.with_name("mixing_layer.h")
INCLUDES = (*momentum_stack.INCLUDES, LAYER, LAYER.with_name("program.h"))
MAX_RANK = momentum_stack.MAX_RANK

_programs: dict[int, ctypes.Array[ctypes.c_int64]] = {}

_library_of_torch = torch.library.Library("learned_opt", "FRAGMENT")
_library_of_torch.define(
    "equivariant_stack(Tensor[] params, Tensor[] grads, Tensor[] momenta, Tensor[] further, "
    "Tensor[] groups, Tensor[] biases, Tensor[] shared, int[] sizes, int num_layers, "
    "int program, bool joint, float epsilon, bool scalars) -> Tensor[]",
    tags=(torch.Tag.needs_fixed_stride_order,),
)


def add_program(numbers: Sequence[int]) -> int:
    """Keep a program, and return its key, which is the same in every process.

    Compiled graphs, which are kept in files, hold keys.
    """
    digest = hashlib.sha256(repr(list(numbers)).encode()).digest()
    key = int.from_bytes(digest[:7], "big")
    if key not in _programs:
        _programs[key] = (ctypes.c_int64 * len(numbers))(*numbers)
    return key


def equivariant_stack(
    params: Sequence[Tensor],
    grads: Sequence[Tensor],
    momenta: Sequence[Tensor],
    further: Sequence[Tensor],
    groups: Sequence[Tensor],
    biases: Sequence[Tensor],
    shared: Sequence[Tensor],
    sizes: Sequence[int],
    num_layers: int,
    program: int,
    normalisation: Normalisation,
) -> list[Tensor]:
    """Move momenta and run layers, with a ReLU between them, on what they say.

    Args:
        params: ``(M, *shape)``.
        grads: ``(M, *shape)``.
        momenta: ``(M, 6, *shape)``.
        further: channels ``(M, E, *shape)`` beside the eight of ``features.tensor_features``, as
            they are; empty where there are none.
        groups: of each layer, ``(M, K, C_in, D, C_out)`` for each group of the plan; the first
            layer has 8 + E channels in, and the shared ones behind them.
        biases: of each layer, ``(M, C_out)`` for each tensor; empty where there are none.
        shared: ``(M, C_shared)``, a list of one or none.
        sizes: N of each tensor.
        num_layers: L.
        program: key of the program of the plan.
        normalisation: of the eight features.

    Returns:
        list[Tensor]: the moved momenta, then outputs ``(M, N, C_L)`` of each tensor.
    """
    tensors = (params, grads, momenta, further, groups, biases, shared)
    kind = normalisation
    operator = torch.ops.learned_opt.equivariant_stack.default
    numbers = (list(sizes), num_layers, program)
    return operator(*map(list, tensors), *numbers, kind.joint, kind.epsilon, kind.scalars)


def _on_cpu(
    params,
    grads,
    momenta,
    further,
    groups,
    biases,
    shared,
    sizes,
    num_layers,
    program,
    joint,
    epsilon,
    scalars,
) -> list[Tensor]:
    outputs = _allocate(momenta, groups, sizes)
    in_channels = NUM_TENSOR_FEATURES + (further[0].shape[1] if further else 0)
    widths = tuple(_widths(in_channels, groups, num_layers))
    kernel = _kernel(params[0].dtype, widths)

    # copies need names that outlive the call, since C holds no reference
    per_chain = [momentum_stack.by_chain(each) for each in (*groups, *biases, *shared)]
    per_param = []
    for tensors in (params, grads, momenta, further):
        per_param += [tensor.contiguous() for tensor in tensors]
    theta = list(_theta(per_chain[: len(groups)], per_chain[len(groups) :], len(sizes), num_layers))

    addresses = [tensor.data_ptr() for tensor in (*per_param, *outputs)]
    ranks = [param.ndim - 1 for param in params]
    kernel(
        len(params[0]),
        _programs[program],
        (ctypes.c_int64 * len(ranks))(*ranks),
        (ctypes.c_void_p * len(addresses))(*addresses),
        (ctypes.c_int64 * len(theta))(*theta),
        groups[0].shape[2] - in_channels,
        joint,
        epsilon,
        scalars,
        torch.get_num_threads(),
    )
    return outputs


def _theta(
    groups: Sequence[Tensor], others: Sequence[Tensor], num_tensors: int, num_layers: int
) -> Iterator[int]:
    """Address and stride of chains of everything that the layers multiply with or add."""
    num_groups = len(groups) // num_layers
    has_biases = len(others) >= num_tensors * num_layers
    for layer in range(num_layers):
        for group in groups[layer * num_groups : (layer + 1) * num_groups]:
            yield from (group.data_ptr(), group.stride(0))
        if not has_biases:
            yield from [0] * (2 * num_tensors)
            continue
        for bias in others[layer * num_tensors : (layer + 1) * num_tensors]:
            yield from (bias.data_ptr(), bias.stride(0))

    shared = others[num_tensors * num_layers * has_biases :]
    yield from (shared[0].data_ptr(), shared[0].stride(0)) if shared else (0, 0)


def _widths(in_channels: int, groups: Sequence[Tensor], num_layers: int) -> Iterator[int]:
    yield in_channels
    for group in groups[:: len(groups) // num_layers]:
        yield group.shape[4]


@cache
def _kernel(dtype: torch.dtype, widths: tuple[int, ...]) -> Callable[..., None]:
    """The C function for layers of these channels."""
    library = _library(dtype, widths)
    if library is None:
        raise RuntimeError("equivariant_stack needs a kernel: ask has_kernel before.")

    log.info("steps that mix tensors run in a kernel, vectors of %d bits.", library.vector_bits())
    function = library.equivariant_stack
    int64s = ctypes.POINTER(ctypes.c_int64)
    arrays = [int64s, int64s, ctypes.POINTER(ctypes.c_void_p), int64s]
    options = [ctypes.c_int64, ctypes.c_int, ctypes.c_double, ctypes.c_int, ctypes.c_int]
    function.argtypes = [ctypes.c_int64, *arrays, *options]
    function.restype = None
    return function


def _allocate(
    momenta: Sequence[Tensor], groups: Sequence[Tensor], sizes: Sequence[int]
) -> list[Tensor]:
    outputs = [tensor.new_empty(tensor.shape) for tensor in momenta]
    for size in sizes:
        outputs.append(momenta[0].new_empty(len(momenta[0]), size, groups[-1].shape[4]))
    return outputs


def _fake(params, grads, momenta, further, groups, biases, shared, sizes, *others):
    return _allocate(momenta, groups, sizes)


chain_operator.register(_library_of_torch, "equivariant_stack", _on_cpu, _fake)


def has_kernel(like: Tensor, widths: Sequence[int]) -> bool:
    """Whether ``equivariant_stack`` runs on tensors like this one.

    Args:
        like: a parameter.
        widths: channels before, between and after the layers, without the shared ones.
    """
    if not momentum_stack.may_run(like):
        return False
    return _library(like.dtype, widths) is not None


def _library(dtype: torch.dtype, widths: Sequence[int]) -> ctypes.CDLL | None:
    return native.load(SOURCE, momentum_stack.defines(dtype, widths), INCLUDES)
