"""The folders of runs below ``runs/NAME``, without the link to the newest one."""

from pathlib import Path


def folders_of(parent: Path) -> list[Path]:
    """Run folders in the order of their names, without ``latest`` and what evaluations share."""
    shared = parent / "cells"
    return sorted(path for path in parent.iterdir() if not path.is_symlink() and path != shared)


def only_folder_of(parent: Path) -> Path:
    """The run folder of a name under which one run was made."""
    (folder,) = folders_of(parent)
    return folder
