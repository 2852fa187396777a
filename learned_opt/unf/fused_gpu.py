"""The pointwise stack of ``fused.py`` as one Triton kernel: a block of entries passes through all layers in registers.

Legend: M chains, N entries of a tensor, C channels, L layers, P channels padded to a power of two.
"""

from collections.abc import Sequence

import torch
import triton  # pyright: ignore[reportMissingImports]  (a CPU build of torch comes without)
import triton.language as tl  # pyright: ignore[reportMissingImports]
from torch import Tensor
from torch.nn.functional import pad

BLOCK = 64  # entries of one program
LEAST, MOST = (
    16,
    64,
)  # P: the least that a block product takes, and the most that stays in registers


@triton.jit
def _kernel(
    inputs, weights, biases, outputs, num_entries, stride_m, stride_n, stride_c, c_in, c_out,
    L: tl.constexpr, P: tl.constexpr, BLOCK: tl.constexpr, FINAL_RELU: tl.constexpr,
):  # fmt: skip
    m = tl.program_id(1).to(tl.int64)
    entry = (tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)).to(tl.int64)[:, None]
    channel = tl.arange(0, P)
    inside = entry < num_entries
    places = m * stride_m + entry * stride_n + channel[None, :] * stride_c
    x = tl.load(inputs + places, mask=inside & (channel[None, :] < c_in), other=0.0)
    for layer in tl.static_range(L):
        first = m * L + layer
        weight = tl.load(weights + first * P * P + channel[:, None] * P + channel[None, :])
        x = (
            tl.dot(x, weight, input_precision="ieee")
            + tl.load(biases + first * P + channel)[None, :]
        )
        if FINAL_RELU or layer < L - 1:
            x = tl.where(x < 0, 0.0, x)  # NaN stays NaN
    places = (m * num_entries + entry) * c_out + channel[None, :]
    tl.store(outputs + places, x, mask=inside & (channel[None, :] < c_out))


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
    c_in, c_out = weights[0].shape[1], weights[-1].shape[2]
    widest = max(c_in, *(weight.shape[2] for weight in weights))
    width = max(LEAST, triton.next_power_of_2(widest))
    packed = torch.stack(
        [pad(w, (0, width - w.shape[2], 0, width - w.shape[1])) for w in weights], 1
    )
    shifts = torch.stack([pad(b, (0, width - b.shape[1])) for b in biases], 1)
    for tensor, output in zip(inputs, outputs, strict=True):
        chains, entries, _ = tensor.shape
        launch = _kernel[(triton.cdiv(entries, BLOCK), chains)]  # pyright: ignore[reportIndexIssue]
        launch(
            tensor,
            packed,
            shifts,
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
