"""Peak memory of a call by the records of torch's allocators."""

import gc
import os
from collections.abc import Callable
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile


def peak_bytes(function: Callable[[], object], device: torch.device) -> int:
    """Most bytes that the allocator had given out at once during a call.

    Bytes in use before do not count. On the CPU the profiler records every block that torch's
    allocator gives and takes, in eager operations and in compiled code alike; scratch memory
    that matrix libraries fetch by themselves is not seen. On a GPU the caching allocator counts
    by itself.

    Args:
        function: the call.
        device: where its tensors live.
    """
    gc.collect()  # garbage that goes away during the call should have been made there
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        function()
        return torch.cuda.max_memory_allocated(device) - before

    with silent_profile(profile_memory=True) as records:
        function()

    results: Any = records.profiler
    events = sorted(results.kineto_results.events(), key=lambda event: event.start_ns())

    in_use = 0
    peak = 0
    for event in events:
        if event.name() == "[memory]":
            in_use += event.nbytes()
            peak = max(peak, in_use)

    return peak


def silent_profile(profile_memory: bool = False) -> profile:
    """``torch.profiler.profile`` of all devices, without the lines that it writes to stderr."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    devices = [ProfilerActivity.CPU]
    if torch.cuda.is_available():
        devices.append(ProfilerActivity.CUDA)
    return profile(activities=devices, profile_memory=profile_memory)
