"""Folders that this process has made for a run: input that is refused leaves none of them."""

import itertools
from pathlib import Path

from learned_opt.runtime import latest_link
from learned_opt.runtime.run_folder import RunFolder

_made: dict[Path, list[Path]] = {}  # run folder -> it and those above that were missing
_linked: dict[Path, str | None] = {}  # run folder -> what the link beside it pointed to before


def make(folder: Path) -> None:
    """Make a folder and those above it, where they are missing.

    Raises:
        OSError: it cannot be made.
    """
    missing = _missing(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if missing:
        _made[folder.resolve()] = missing


def claim(path: Path) -> Path:
    """Make a folder that no other process has made: the first of PATH, PATH_2, PATH_3, ...

    The link ``latest`` beside it points to it from then on.

    Args:
        path: where it should be; the folders above are made as well.

    Returns:
        Path: the folder, which is empty.

    Raises:
        OSError: the folder above cannot be written to.

    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp()) / "runs"
    >>> [claim(folder / "1").name, claim(folder / "1").name]
    ['1', '1_2']
    """
    above = _missing(path.parent)
    path.parent.mkdir(parents=True, exist_ok=True)

    for number in itertools.count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}_{number}")
        try:
            folder.mkdir()
        except FileExistsError:
            continue
        except OSError:
            _remove_empty(above)
            raise
        _made[folder.resolve()] = [folder.resolve(), *above]
        _linked[folder.resolve()] = latest_link.point_at(folder)
        return folder
    raise AssertionError("numbers do not end")


def take_back(folder: Path, log_name: str) -> None:
    """Remove a folder that this process has made, while it holds only what every start writes.

    Args:
        folder: of the run.
        log_name: file name of its log; empty where it has none.
    """
    made = _made.pop(folder.resolve(), [])
    if not made:
        return

    run = RunFolder(folder)
    written = [run.job, run.lock, run.starts, *folder.glob("code-*.diff")]
    if log_name:
        written.append(folder / log_name)
    written += run.hydra.rglob("*.yaml")
    below = [path for path in run.hydra.rglob("*") if path.is_dir()]
    others = set(folder.rglob("*")) - {*written, *below, run.hydra}
    if others:
        return  # it has results, and whoever is refused now may want them

    for path in written:
        path.unlink(missing_ok=True)
    _remove_empty([*reversed(below), run.hydra, *made])


def _remove_empty(folders: list[Path]) -> None:
    """Remove folders, the lowest first, up to one that holds what another run has begun."""
    for path in folders:
        if not path.is_dir():
            continue
        try:
            path.rmdir()
        except OSError:
            return
        if path in _linked:
            latest_link.take_back(path, _linked.pop(path))


def _missing(folder: Path) -> list[Path]:
    """A folder and those above it that are not there, the lowest first."""
    return [path for path in (folder.resolve(), *folder.resolve().parents) if not path.exists()]
