"""Whether data are read into memory or stay on the disk."""

import os
from pathlib import Path

AUTO = "auto"
SHARE = 0.5  # of the free memory that data may take
MEMORY = Path("/proc/meminfo")
LIMIT = Path("/sys/fs/cgroup/memory.max")  # of a container
USED = Path("/sys/fs/cgroup/memory.current")


def check_choice(in_memory: bool | str) -> None:
    """Check the argument of a task.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(in_memory, bool) and in_memory != AUTO:
        raise ValueError(f"in_memory must be auto, true or false, got {in_memory!r}.")


def stays_on_disk(in_memory: bool | str, num_bytes: int) -> bool:
    """Whether data of a size are left on the disk.

    Args:
        in_memory: as the user wants it; ``auto`` for where they fit into half of the free memory.
        num_bytes: of their columns in memory.
    """
    if in_memory == AUTO:
        return num_bytes > SHARE * free_bytes()
    return not in_memory


def free_bytes() -> int:
    """Free memory of this machine or container."""
    free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if MEMORY.is_file():
        for line in MEMORY.read_text().splitlines():
            if line.startswith("MemAvailable:"):
                free = int(line.split()[1]) * 1024

    if LIMIT.is_file() and USED.is_file():
        limit = LIMIT.read_text().strip()
        if limit != "max":
            free = min(free, int(limit) - int(USED.read_text()))
    return free
