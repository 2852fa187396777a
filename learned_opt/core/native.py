"""C++ kernels, built at first use and kept for later runs.

They need the compiler that ``torch.compile`` needs as well. A library is code that runs, so only
files that nobody else can have written are loaded, and only if they are what was built.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shlex
import shutil
import stat
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from learned_opt.core.files import write_whole

log = logging.getLogger(__name__)
FLAGS = ("-O3", "-march=native", "-std=gnu++17", "-fopenmp", "-shared", "-fPIC")


@cache
def load(
    source: Path, defines: tuple[tuple[str, str], ...], includes: tuple[Path, ...] = ()
) -> ctypes.CDLL | None:
    """Build and load the library made of a C++ file.

    Args:
        source: the file.
        defines: preprocessor names and their values.
        includes: our own files that it includes; when one changes, the library is built anew.

    Returns:
        ctypes.CDLL | None: None, with one warning, where there is no compiler or it fails.
    """
    compiler = _compiler()
    if not compiler:
        return _warn_once("no C++ compiler was found (g++, or what CXX names)")

    command = [*compiler, *FLAGS, *(f"-D{name}={value}" for name, value in defines)]
    texts = [file.read_bytes() for file in (source, *includes)]
    recipe = repr((command, texts, _processor()))
    # any change of source, flags or processor names another file, so none is ever stale
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]
    name = f"{source.stem}-{key}"

    try:
        with tempfile.TemporaryDirectory() as private:
            folder = cache_dir() if _is_safe_cache() else Path(private)
            library = _find(folder, name)
            if library is None:
                library = _build([*command, str(source)], folder, name)
            return ctypes.CDLL(str(library))  # stays mapped when its file is gone
    except (OSError, subprocess.CalledProcessError) as error:
        return _warn_once(f"{source.name} could not be built: {_first_line(error)}")


def cache_dir() -> Path:
    """Where built kernels lie: ``$XDG_CACHE_HOME/learned_opt``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "learned_opt"


def _compiler() -> list[str]:
    """The words of the compiler's command; none where it does not exist."""
    # the same variable and default as torch.compile's
    try:
        words = shlex.split(os.environ.get("CXX", "g++"))
    except ValueError:  # a quotation mark that is not closed
        return []

    path = shutil.which(words[0]) if words else None
    return [path, *words[1:]] if path else []


def _is_safe_cache() -> bool:
    """Whether only this user can write to the cache, which is made where it is missing."""
    folder = cache_dir()
    folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)

    # in a folder with the sticky bit, such as /tmp, nobody renames what is another's
    parent = folder.parent.stat()
    is_sticky = bool(parent.st_mode & stat.S_ISVTX)
    writers = [] if is_sticky else _writers(parent, (os.getuid(), 0))
    if not writers:
        writers = _writers(folder.lstat(), (os.getuid(),))
    if not writers:
        return True

    _note_once(
        f"kernels are built anew in each process: {folder} is not used, because others may write "
        f"there ({' and '.join(writers)}); remove it, or set XDG_CACHE_HOME to a folder that only "
        "you can write to."
    )
    return False


def _writers(status: os.stat_result, owners: tuple[int, ...]) -> list[str]:
    """Why others than these owners may write to a file or folder; empty where none may."""
    reasons = []
    if stat.S_ISLNK(status.st_mode):
        reasons.append("it is a link")
    if status.st_uid not in owners:
        reasons.append(f"its owner is user {status.st_uid}")
    if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        reasons.append(f"its mode is {stat.S_IMODE(status.st_mode):o}")
    return reasons


def _find(folder: Path, name: str) -> Path | None:
    """The library of a name that is whole and ours; what is not is removed.

    The end of a file's name is the hash of its content: no kill comes between the two.
    """
    for library in sorted(folder.glob(f"{name}-*.so")):
        is_ours = not _writers(library.lstat(), (os.getuid(),))
        if is_ours and library.name == _file_name(name, library.read_bytes()):
            return library
        log.warning("%s is damaged or not only yours; it is built anew.", library)
        library.unlink(missing_ok=True)
    return None


def _build(command: list[str], folder: Path, name: str) -> Path:
    with tempfile.TemporaryDirectory() as scratch:
        built = Path(scratch) / f"{name}.so"
        subprocess.run([*command, "-o", str(built)], check=True, capture_output=True, text=True)
        content = built.read_bytes()

    library = folder / _file_name(name, content)
    write_whole(library, content)
    library.chmod(0o600)  # whatever the umask: others must not be able to change it
    return library


def _file_name(name: str, content: bytes) -> str:
    return f"{name}-{hashlib.sha256(content).hexdigest()[:32]}.so"


def _first_line(error: OSError | subprocess.CalledProcessError) -> str:
    """What the compiler complains about first, or the error itself where it says nothing."""
    complaint = error.stderr if isinstance(error, subprocess.CalledProcessError) else ""
    lines = complaint.strip().splitlines()
    return lines[0] if lines else str(error)


@cache
def _processor() -> str:
    """What ``-march=native`` depends on; nodes of a cluster may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"

    kinds = {line for line in lines if line.startswith(("model name", "flags", "Features"))}
    return "\n".join(sorted(kinds))


@cache
def _warn_once(reason: str) -> None:
    log.warning("running without fused kernels (same results to rounding, slower): %s.", reason)


@cache
def _note_once(sentence: str) -> None:
    log.warning("%s", sentence)
