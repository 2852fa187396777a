"""The GPU's kernel and CUDA graphs.

Without a GPU the kernel runs in Triton's interpreter and through its compiler.
"""

import importlib.util
import os
import subprocess
import sys
from itertools import pairwise

import pytest
import torch

from learned_opt.core.compiled import Compiled
from tests.unf.test_fused import one_by_one

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None,
    reason="needs Triton, which CPU builds of torch lack: pip install triton",
)


def check_kernel(device: str) -> None:
    """Against the layers one by one; entries fewer and more than a block, in both memory orders."""
    from learned_opt.unf import fused_gpu

    torch.manual_seed(0)
    for widths in ((1, 1), (8, 32, 32, 1), (5, 13, 9), (20, 40)):
        weights = [torch.randn(3, a, b, device=device) / a**0.5 for a, b in pairwise(widths)]
        biases = [torch.randn(3, b, device=device) for b in widths[1:]]
        tensors = [torch.randn(3, n, widths[0], device=device) for n in (1, 64, 200)]
        tensors.append(torch.randn(3, widths[0], 96, device=device).mT)
        for final_relu in (True, False):
            outputs = [
                torch.full((3, x.shape[1], widths[-1]), torch.nan, device=device) for x in tensors
            ]
            fused_gpu.pointwise_stack(tensors, weights, biases, outputs, final_relu)
            for x, output in zip(tensors, outputs, strict=True):
                expected = one_by_one(x, weights, biases, final_relu)
                torch.testing.assert_close(
                    output, expected, rtol=0, atol=1e-5 * expected.abs().max().item()
                )


def compile_kernel() -> None:
    """To machine code of two generations of GPUs, by the compiler that Triton brings."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile

    from learned_opt.unf import fused_gpu

    pointers = dict.fromkeys(("inputs", "weights", "biases", "outputs"), "*fp32")
    numbers = dict.fromkeys(
        ("num_entries", "stride_m", "stride_n", "stride_c", "c_in", "c_out"), "i32"
    )
    constants = {"L": 3, "P": 32, "BLOCK": fused_gpu.BLOCK, "FINAL_RELU": False}
    signature = {**pointers, **numbers, **dict.fromkeys(constants, "constexpr")}
    source = ASTSource(fused_gpu._kernel, signature=signature, constexprs=constants)
    for capability in (80, 90):
        assert compile(source, target=GPUTarget("cuda", capability, 32)).asm["cubin"]


@needs_triton
@pytest.mark.parametrize(
    ("function", "interpret"), [("check_kernel('cpu')", "1"), ("compile_kernel()", "0")]
)
def test_the_kernel_without_a_gpu(function, interpret) -> None:
    """In a process of its own: Triton reads the setting when it is imported."""
    script = f"from tests.unf.test_fused_gpu import *; {function}"
    env = os.environ | {"TRITON_INTERPRET": interpret}
    done = subprocess.run(
        [sys.executable, "-c", script], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.gpu
def test_the_kernel_on_a_gpu() -> None:
    check_kernel("cuda")


@pytest.mark.gpu
def test_a_cuda_graph_repeats_and_what_it_returned_stays() -> None:
    function = Compiled(lambda tree: {"x": tree["x"] * 2 + 1})
    first = function({"x": torch.zeros(5, device="cuda")})
    second = function(first)
    assert first["x"].tolist() == [1] * 5
    assert second["x"].tolist() == [3] * 5
