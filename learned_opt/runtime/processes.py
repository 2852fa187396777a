"""Which process a number means: numbers are given anew after a reboot, and in every container."""

import subprocess
from pathlib import Path

PROC = Path("/proc")
START_TIME = 19  # position in /proc/PID/stat, counted behind the name of the program


def start_of(pid: int) -> str | None:
    """When a process began, as text that no other process of this number has; None if it is gone.

    Args:
        pid: the number of the process.

    >>> import os
    >>> start_of(os.getpid()) == start_of(os.getpid())
    True
    """
    if not PROC.is_dir():
        return _start_by_ps(pid)

    try:
        stat = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    fields = stat.rsplit(") ", 1)[1].split()
    if fields[0] == "Z":
        return None  # it has ended, and its parent has not noticed yet

    # ticks count from the boot, which therefore belongs to the name
    boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
    return f"{boot} {fields[START_TIME]}"


def _start_by_ps(pid: int) -> str | None:
    """The same where there is no /proc, as on macOS."""
    command = ["ps", "-o", "lstart=", "-p", str(pid)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    return result.stdout.strip() or None
