"""Memory of the process: settings of the C allocator, and how much there is to be had."""

import ctypes
import os
import sys
from pathlib import Path

import torch

# glibc's malloc.h
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
LARGEST_MMAP_THRESHOLD = 32 * 2**20  # bytes; glibc refuses more
LARGEST_TRIM_THRESHOLD = 2**31 - 1  # bytes


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for reuse instead of handing them back to the kernel.

    An inner step frees and allocates tens of blocks of megabytes; returned to the kernel each time,
    they are zeroed page by page at the next touch (docs/log/inner-loop.md).

    Returns:
        bool: whether the settings took effect; False where the C library is not glibc.
    """
    if not sys.platform.startswith("linux"):
        return False

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False

    return bool(
        mallopt(M_MMAP_THRESHOLD, LARGEST_MMAP_THRESHOLD)
        and mallopt(M_TRIM_THRESHOLD, LARGEST_TRIM_THRESHOLD)
    )


def available_bytes(device: torch.device | str) -> int:
    """Free memory of a GPU, or on the CPU what the kernel and the control groups allow."""
    if torch.device(device).type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    rooms = cgroup_rooms(Path("/sys/fs/cgroup"), _read(Path("/proc/self/cgroup")))
    return min([_available_ram(), *rooms])


def cgroup_rooms(root: Path, membership: str) -> list[int]:
    """Bytes left under each memory limit of a process.

    Files that can be dropped do not count as used.

    Args:
        root: where control groups are mounted, version 1 or 2.
        membership: text of ``/proc/self/cgroup``.
    """
    rooms = []
    for line in membership.splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            rooms += _rooms_above(root, path, "memory.max", "memory.current")
        elif controllers == "memory":
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes")
            rooms += _rooms_above(root / "memory", path, *names)

    return rooms


def _rooms_above(mount: Path, path: str, limit: str, used: str) -> list[int]:
    """Room of a group and of those above it: a batch system limits the job, which is above."""
    group = mount / path.lstrip("/")
    rooms = []
    for folder in (group, *group.parents):
        ceiling = _read(folder / limit).strip()
        if folder.is_relative_to(mount) and ceiling.isdigit():
            in_use = int(_read(folder / used)) - _droppable(folder)
            rooms.append(max(0, int(ceiling) - in_use))

    return rooms


def _droppable(folder: Path) -> int:
    """Bytes of cached files of a group that the kernel drops when memory is needed."""
    stat = {}
    for entry in _read(folder / "memory.stat").splitlines():
        name, value = entry.split()[:2]
        stat[name] = int(value)
    return stat.get("total_inactive_file", stat.get("inactive_file", 0))


def _available_ram() -> int:
    for line in _read(Path("/proc/meminfo")).splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")  # no Linux: all there is


def _read(path: Path) -> str:
    """Text of a file, empty where there is none."""
    return path.read_text() if path.is_file() else ""
