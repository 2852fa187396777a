"""Where the time of a call goes: matrix products, own kernels, generated code, the rest."""

import re
import time
from collections.abc import Callable
from typing import Any

from torch._C._autograd import DeviceType

from learned_opt.evaluation.cost.allocator import silent_profile

HEADINGS = ("optimizer", "ms", "products %", "kernels %", "generated %", "other torch %", "rest %")
KINDS = {
    "products": re.compile(r"mm\b|matmul|linear|conv|gemm|cutlass|cublas|mkl", re.IGNORECASE),
    "kernels": re.compile(r"^learned_opt::"),
    "generated": re.compile(r"cpp_fused|triton|^graph_\d"),
}
OTHER = "other torch"


def breakdown(call: Callable[[], object]) -> dict[str, float]:
    """Seconds of a call by kind, from one profiled run.

    ``products`` are matrix products and convolutions, ``kernels`` are this package's own,
    ``generated`` is code that the compiler wrote, ``other torch`` are all other operations,
    ``rest`` is the time on the clock outside of any of them: Python, guards, waiting.
    On the CPU the compiler marks its code only under
    ``torch._inductor.config.cpp.enable_kernel_profile``.

    Args:
        call: has been called before, so that nothing is left to compile.
    """
    with silent_profile() as records:
        start = time.perf_counter()
        call()
        total = time.perf_counter() - start

    seconds = dict.fromkeys((*KINDS, OTHER), 0.0)
    events = records.key_averages()
    on_gpu = any(event.device_type == DeviceType.CUDA for event in events)
    for event in events:
        if on_gpu and event.device_type != DeviceType.CUDA:
            continue  # the CPU only launches what the GPU does

        microseconds = event.self_device_time_total if on_gpu else event.self_cpu_time_total
        kind = _kind(event.key)
        if kind or on_gpu or event.key.startswith("aten::"):
            seconds[kind or OTHER] += microseconds * 1e-6

    rest = max(0.0, total - sum(seconds.values()))
    return {"total": total, **seconds, "rest": rest}


def _kind(operation: str) -> str | None:
    for kind, pattern in KINDS.items():
        if pattern.search(operation):
            return kind
    return None


def row(name: str, seconds: dict[str, float]) -> dict[str, Any]:
    """A row of the table, in per cent of the time on the clock."""
    shares = []
    for kind in (*KINDS, OTHER, "rest"):
        shares.append(round(100 * seconds[kind] / seconds["total"]))
    milliseconds = f"{1e3 * seconds['total']:.1f}"
    return dict(zip(HEADINGS, (name, milliseconds, *shares), strict=True))
