"""C++ kernels, built at first use and kept for later runs.

They need the compiler that ``torch.compile`` needs as well.
"""

import ctypes
import hashlib
import logging
import os
import platform
import shutil
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
    # the same variable and default as torch.compile's
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return _warn_once("no C++ compiler was found (g++, or what CXX names)")

    command = [compiler, *FLAGS, *(f"-D{name}={value}" for name, value in defines)]
    texts = [file.read_bytes() for file in (source, *includes)]
    recipe = repr((command, texts, _processor()))
    # any change of source, flags or processor names another file, so none is ever stale
    key = hashlib.sha256(recipe.encode()).hexdigest()[:16]

    library = cache_dir() / f"{source.stem}-{key}.so"
    if not library.exists():
        try:
            _build([*command, str(source)], library)
        except (OSError, subprocess.CalledProcessError) as error:
            return _warn_once(f"{source.name} could not be built: {_first_line(error)}")

    return ctypes.CDLL(str(library))


def cache_dir() -> Path:
    """Where built kernels lie: ``$XDG_CACHE_HOME/learned_opt``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "learned_opt"


def _build(command: list[str], library: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        built = Path(folder) / library.name
        subprocess.run([*command, "-o", str(built)], check=True, capture_output=True, text=True)
        write_whole(library, built.read_bytes())


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
