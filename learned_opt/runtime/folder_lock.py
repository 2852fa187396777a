"""A lock of a folder: two processes never write the files of one run.

The kernel holds the lock and drops it with the process, however that ends; the file ``.lock`` stays
and says who holds it or held it last. On NFS the kernel asks the server (NFS 4, or 3 with lockd),
so that machines see each other's locks; where the file system has no locks at all, that is said.
"""

import errno
import fcntl
import json
import os
import socket
import sys
from datetime import datetime
from pathlib import Path
from typing import Any

from learned_opt.core.errors import PROGRAM, UsageError
from learned_opt.runtime.run_folder import RunFolder

NO_LOCKS = {errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP}
_held: dict[Path, int] = {}  # folder -> the open file of a lock that this process holds


def acquire(folder: Path, key: str = "hydra.run.dir") -> None:
    """Take the lock of a folder until ``release``, or until this process ends.

    A process that holds it already keeps it.

    Args:
        folder: there already.
        key: what a person sets to choose another folder.

    Raises:
        UsageError: another process holds it.
        OSError: the folder cannot be written to.
    """
    path = folder.resolve()
    if path in _held:
        return

    # not inherited: a process that this one starts does not keep the lock when this one ends
    file = os.open(RunFolder(path).lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = _describe(os.read(file, 4096))
        os.close(file)
        raise UsageError(
            f"{folder} is in use by {holder}; wait until it has ended, or choose another {key}."
        ) from None
    except OSError as error:
        os.close(file)
        if error.errno not in NO_LOCKS:
            raise
        print(
            f"{PROGRAM}: the file system of {folder} has no locks ({error.strerror}), so that "
            "two runs there at once would not be noticed.",
            file=sys.stderr,
        )
        return

    os.ftruncate(file, 0)
    os.write(file, json.dumps(_this_process()).encode())
    _held[path] = file


def release(folder: Path) -> None:
    """Give the lock of a folder back; nothing happens where this process does not hold it."""
    file = _held.pop(folder.resolve(), None)
    if file is not None:
        os.close(file)


def _this_process() -> dict[str, Any]:
    began = datetime.now().astimezone().isoformat(timespec="seconds")
    return {"pid": os.getpid(), "host": socket.gethostname(), "since": began}


def _describe(content: bytes) -> str:
    try:
        holder = json.loads(content)
        return f"process {holder['pid']} on {holder['host']} (since {holder['since']})"
    except (ValueError, KeyError, TypeError):
        return "another process"  # which has not yet written who it is
