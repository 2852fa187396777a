"""Pointwise layers as one operator.

The weights are read once, and nothing between the layers is written to memory.

Legend: M chains, N entries of a tensor, C channels, L layers; a tensor is ``(M, N, C)``.
"""

import ctypes
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import Tensor

from learned_opt.core import native
from learned_opt.unf.chain_batch import more_chains

SOURCE = Path(__file__).with_name("pointwise_stack.cpp")
DENSE = Path(__file__).with_name("dense.h")  # which it includes
C_TYPES = {torch.float32: ("float", "4"), torch.float64: ("double", "8")}


@torch.library.custom_op("learned_opt::pointwise_stack", mutates_args=())
def pointwise_stack(
    inputs: list[Tensor], weights: list[Tensor], biases: list[Tensor], final_relu: bool
) -> list[Tensor]:
    """``x <- relu(x W_l + b_l)`` for every layer, on every entry of every tensor.

    Args:
        inputs: ``(M, N, C_0)`` each, with any strides; entries that lie side by side are read
            fastest.
        weights: ``(M, C_l, C_{l+1})``.
        biases: ``(M, C_{l+1})``.
        final_relu: apply the ReLU after the last layer as well.

    Returns:
        list[Tensor]: ``(M, N, C_L)``, channels side by side in memory, as the layers behind it read
        them.
    """
    widths = [weights[0].shape[1], *(weight.shape[2] for weight in weights)]
    device = inputs[0].device.type
    dtype = inputs[0].dtype
    outputs = _allocate(inputs, weights)

    on_gpu = _gpu_kernel() if device == "cuda" else None
    if on_gpu is not None and on_gpu.takes(dtype, widths):
        on_gpu.pointwise_stack(inputs, weights, biases, outputs, final_relu)
        return outputs

    on_cpu = _cpu_kernel(dtype, widths) if device == "cpu" else None
    if on_cpu is not None:
        _run_on_cpu(on_cpu, inputs, weights, biases, outputs, final_relu)
        return outputs

    for output, tensor in zip(outputs, inputs, strict=True):
        output.copy_(activations(tensor, weights, biases, final_relu)[-1])
    return outputs


def _run_on_cpu(
    kernel,
    inputs: list[Tensor],
    weights: list[Tensor],
    biases: list[Tensor],
    outputs: list[Tensor],
    final_relu: bool,
) -> None:
    # these lists keep the copies alive until the kernel is done
    weights = [weight.contiguous() for weight in weights]
    biases = [bias.contiguous() for bias in biases]
    kernel(
        *stack_arguments(inputs, weights, biases),
        addresses(outputs),
        int(final_relu),
        torch.get_num_threads(),
    )


@pointwise_stack.register_fake
def _(
    inputs: list[Tensor], weights: list[Tensor], biases: list[Tensor], final_relu: bool
) -> list[Tensor]:
    return _allocate(inputs, weights)


pointwise_stack.register_vmap(more_chains(pointwise_stack, num_lists=3))


def activations(
    tensor: Tensor, weights: Sequence[Tensor], biases: Sequence[Tensor], final_relu: bool
) -> list[Tensor]:
    """The input and what follows each layer: L + 1 tensors ``(M, N, C_l)``."""
    hidden = [tensor]

    for layer, (weight, bias) in enumerate(zip(weights, biases, strict=True)):
        output = hidden[-1] @ weight + bias.unsqueeze(1)
        hidden.append(output.relu() if final_relu or layer < len(weights) - 1 else output)
    return hidden


def _allocate(inputs: Sequence[Tensor], weights: Sequence[Tensor]) -> list[Tensor]:
    channels = weights[-1].shape[2]
    return [tensor.new_empty(len(tensor), tensor.shape[1], channels) for tensor in inputs]


@cache
def _gpu_kernel() -> ModuleType | None:
    """Triton comes with the CUDA builds of torch, but for Windows."""
    if importlib.util.find_spec("triton") is None:
        return None
    return importlib.import_module("learned_opt.unf.fused_gpu")


def _cpu_kernel(dtype: torch.dtype, widths: Sequence[int]):
    library = native.load(SOURCE, defines(dtype, widths), (DENSE,)) if dtype in C_TYPES else None
    return library and library.pointwise_stack


def defines(dtype: torch.dtype, widths: Sequence[int]) -> tuple[tuple[str, str], ...]:
    """The preprocessor names that the kernel is compiled with, for a dtype of C_TYPES.

    >>> defines(torch.float32, [8, 32, 1])
    (('REAL', 'float'), ('SIZE', '4'), ('WIDTHS', '8,32,1'))
    """
    name, size = C_TYPES[dtype]
    return ("REAL", name), ("SIZE", size), ("WIDTHS", ",".join(map(str, widths)))


def stack_arguments(
    inputs: Sequence[Tensor], weights: Sequence[Tensor], biases: Sequence[Tensor]
) -> list[Any]:
    """What the kernels of a stack take first.

    Args:
        inputs: ``(M, N, C_0)``, of any strides.
        weights: ``(M, C_l, C_{l+1})``, contiguous.
        biases: ``(M, C_{l+1})``, contiguous.
    """
    sizes = [tensor.shape[1] for tensor in inputs]
    strides = [stride for tensor in inputs for stride in tensor.stride()]
    return [
        ctypes.c_int64(len(inputs[0])),
        ctypes.c_int64(len(inputs)),
        (ctypes.c_int64 * len(sizes))(*sizes),
        addresses(inputs),
        (ctypes.c_int64 * len(strides))(*strides),
        addresses(weights),
        addresses(biases),
    ]


def addresses(tensors: Sequence[Tensor]) -> ctypes.Array[ctypes.c_void_p]:
    """The addresses of the first entries of tensors, as an array for C."""
    return (ctypes.c_void_p * len(tensors))(*[tensor.data_ptr() for tensor in tensors])
