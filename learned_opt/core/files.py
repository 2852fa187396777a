"""Files that are written whole or not at all: the only writer of everything that a run leaves."""

import json
import os
import threading
from pathlib import Path
from typing import Any


def write_whole(path: Path, content: bytes | memoryview) -> None:
    """Replace a file in one move that survives a crash of the machine.

    An error leaves the file that was there before, and nothing else. Two processes or threads may
    write the same file at once: the last one wins, and neither sees half of the other's.

    Args:
        path: the file; its folder is made where it is missing.
        content: all of it.

    Raises:
        OSError: the disk is full, or the folder cannot be written to.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> write_whole(folder / "a" / "theta", b"0123")
    >>> sorted(file.name for file in (folder / "a").iterdir())
    ['theta']
    """
    path.parent.mkdir(parents=True, exist_ok=True)

    writer = f"{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f"{path.name}.{writer}.partial")
    try:
        with partial.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:  # an interrupt too must leave no half of a file
        partial.unlink(missing_ok=True)
        raise

    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)  # makes the move itself durable
    finally:
        os.close(folder)


def write_link(path: Path, target: str) -> None:
    """Replace a symbolic link in one move; another file of that name is replaced as well.

    Args:
        path: the link, in a folder that is there.
        target: what it points to, as it is to be read from the folder of the link.

    Raises:
        OSError: the file system has no links, the folder cannot be written to, or a folder has
            that name.
    """
    writer = f"{os.getpid()}-{threading.get_ident()}"
    partial = path.with_name(f"{path.name}.{writer}.partial")
    try:
        partial.symlink_to(target)
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """``write_whole`` of a text in UTF-8."""
    write_whole(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """``write_whole`` of strict JSON, indented by one.

    Raises:
        ValueError: the value holds NaN or infinity, for which JSON has no word.
    """
    write_text(path, json.dumps(value, indent=1, allow_nan=False) + "\n")
