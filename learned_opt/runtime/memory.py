"""Memory of the process: settings of the C allocator, and how much there is to be had."""

import ctypes
import os
import sys
from pathlib import Path

import torch

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc refuses more


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for reuse instead of handing them back to the kernel.

    An inner step frees and allocates tens of blocks of megabytes; returned to the kernel each time, they are zeroed
    page by page at the next touch (LOG.md, 2026-11-22).

    Returns:
        bool: whether the settings took effect; False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
    )


def available_bytes(device: torch.device | str) -> int:
    """Free memory of a GPU; on the CPU what the kernel can give and the control groups of the process allow."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(
        [_available_ram(), *cgroup_rooms(Path("/sys/fs/cgroup"), _read(Path("/proc/self/cgroup")))]
    )


def cgroup_rooms(root: Path, membership: str) -> list[int]:
    """Bytes left under each memory limit of a process; files that can be dropped do not count as used.

    Args:
        root: where control groups are mounted, version 1 or 2.
        membership: text of ``/proc/self/cgroup``.
    """
    rooms = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers not in ("", "memory"):
            continue
        mount, limit, used = (
            (root, "memory.max", "memory.current")
            if controllers == ""
            else (root / "memory", "memory.limit_in_bytes", "memory.usage_in_bytes")
        )
        own = mount / path.lstrip("/")
        # a batch system limits the job, which is above the group of the process
        for folder in (own, *(parent for parent in own.parents if parent.is_relative_to(mount))):
            ceiling = _read(folder / limit).strip()
            if ceiling.isdigit():
                stat = dict(
                    entry.split()[:2] for entry in _read(folder / "memory.stat").splitlines()
                )
                cached = stat.get("total_inactive_file", stat.get("inactive_file", 0))
                rooms.append(max(0, int(ceiling) - int(_read(folder / used)) + int(cached)))
    return rooms


def _available_ram() -> int:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # no Linux: all there is


def _read(path: Path) -> str:
    """Text of a file, empty where there is none."""
    return path.read_text() if path.is_file() else ""
