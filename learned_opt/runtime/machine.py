"""What a timing depends on beside the code."""

import os
import platform
from pathlib import Path
from typing import Any

import torch

# facts without which two timings do not compare
DECIDING = ("processor", "cores", "threads", "device")


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Processor, threads, device and versions, and how busy the machine is."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
        # processes that wanted to run, mean of the last minute
        "load": round(os.getloadavg()[0], 2),
    }


def busy_machine() -> str | None:
    """That more processes want to run than there are cores; None where they fit."""
    load = os.getloadavg()[0]  # mean of the last minute
    cores = len(os.sched_getaffinity(0))
    if load <= cores:
        return None
    return f"busy: load {load:.1f} on {cores} cores, so everything takes longer than alone"


def differences(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """The deciding facts in which two machines differ."""
    lines = []
    for key in DECIDING:
        if new.get(key) != old.get(key):
            lines.append(f"{key} {old.get(key)} -> {new.get(key)}")
    return lines


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    for line in lines:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()
