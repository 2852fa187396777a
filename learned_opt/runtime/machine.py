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
        "load": round(
            os.getloadavg()[0], 2
        ),  # processes that wanted to run, mean of the last minute
    }


def differences(now: dict[str, Any], then: dict[str, Any]) -> list[str]:
    """The deciding facts in which two machines differ."""
    return [
        f"{key} {then.get(key)} -> {now.get(key)}"
        for key in DECIDING
        if now.get(key) != then.get(key)
    ]


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = (line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
