"""The pointwise stack of ``fused.py`` as one Triton kernel.

A block of entries passes through all layers in registers.

Legend: M chains, N entries of a tensor, C channels, L layers, P channels padded to a power of two.
"""

from collections.abc import Sequence

import torch
import triton  # pyright: ignore[reportMissingImports]  (a CPU build of torch comes without)
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 64  # entries of one program
LEAST = 16  # P: the least that a block product takes
MOST = 64  # P: the most that stays in registers


# offsets are 64-bit: the features of a large network are more than 2^31 numbers
@triton.jit
def _kernel(
    inputs, weights, biases, outputs, num_entries, stride_m, stride_n, stride_c, c_in, c_out,
    L: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr, FINAL_RELU: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1).to(tl.int64)
    entry = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)[:, None]  # (BLOCK, 1)
    channel = tl.arange(0, P)
    inside = entry < num_entries

    offsets = m * stride_m + entry * stride_n + channel[None, :] * stride_c  # (BLOCK, P)
    x = tl.load(inputs + offsets, mask=inside & (channel[None, :] < c_in), other=0.0)

    for layer in tl.static_range(L):
        first = m * L + layer
        weight = tl.load(weights + first * P * P + channel[:, None] * P + channel[None, :])
        bias = tl.load(biases + first * P + channel)
        x = tl.dot(x, weight, input_precision="ieee") + bias[None, :]
        if FINAL_RELU or layer < L - 1:
            x = tl.where(x < 0, 0.0, x)  # NaN stays NaN

    offsets = (m * num_entries + entry) * c_out + channel[None, :]
    tl.store(outputs + offsets, x, mask=inside & (channel[None, :] < c_out))


def takes(dtype: torch.dtype, widths: Sequence[int]) -> bool:
    """Whether the kernel is made for layers of this type and of these numbers of channels."""
    return dtype == torch.float32 and max(widths) <= MOST


def pointwise_stack(
    inputs: Sequence[Tensor],
    weights: Sequence[Tensor],
    biases: Sequence[Tensor],
    outputs: Sequence[Tensor],
    final_relu: bool,
) -> None:
    """Fill ``outputs``; arguments as those of ``fused.pointwise_stack``, all float32 on one device.

    Products are exact float32 (no TF32), as on the CPU.
    """
    c_in = weights[0].shape[1]
    c_out = weights[-1].shape[2]
    widest = max(c_in, *(weight.shape[2] for weight in weights))
    width = max(LEAST, triton.next_power_of_2(widest))  # P

    padded_weights = []
    for weight in weights:
        padding = (0, width - weight.shape[2], 0, width - weight.shape[1])
        padded_weights.append(pad(weight, padding))
    padded_biases = [pad(bias, (0, width - bias.shape[1])) for bias in biases]
    packed_weights = torch.stack(padded_weights, 1)  # (M, L, P, P)
    packed_biases = torch.stack(padded_biases, 1)  # (M, L, P)

    for tensor, output in zip(inputs, outputs, strict=True):
        chains, entries, _ = tensor.shape
        launch = _kernel[(triton.cdiv(entries, BLOCK), chains)]  # pyright: ignore[reportIndexIssue]
        launch(
            tensor,
            packed_weights,
            packed_biases,
            output,
            entries,
            *tensor.stride(),
            c_in,
            c_out,
            len(weights),
            width,
            BLOCK,
            final_relu,
        )
