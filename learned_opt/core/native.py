"""C++ kernels, built at first use by the compiler that ``torch.compile`` needs as well, and kept for later runs."""

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

log = logging.getLogger(__name__)
FLAGS = ("-O3", "-march=native", "-std=gnu++17", "-fopenmp", "-shared", "-fPIC")


@cache
def load(
    source: Path, defines: tuple[tuple[str, str], ...], includes: tuple[Path, ...] = ()
) -> ctypes.CDLL | None:
    """The library made of a C++ file; None, with one warning, where there is no compiler or it fails.

    Args:
        source: the file.
        defines: preprocessor names and their values.
        includes: our own files that it includes; when one changes, the library is built anew.
    """
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        return _warn_once("no C++ compiler was found (g++, or what CXX names)")
    command = [compiler, *FLAGS, *(f"-D{name}={value}" for name, value in defines)]
    texts = [file.read_bytes() for file in (source, *includes)]
    key = hashlib.sha256(repr((command, texts, _processor())).encode()).hexdigest()[:16]
    library = cache_dir() / f"{source.stem}-{key}.so"
    if not library.exists():
        try:
            _build([*command, str(source)], library)
        except (OSError, subprocess.CalledProcessError) as error:
            reason = (
                error.stderr.strip().splitlines()[:1]
                if isinstance(error, subprocess.CalledProcessError)
                else []
            )
            return _warn_once(f"{source.name} could not be built: {(reason or [error])[0]}")
    return ctypes.CDLL(str(library))


def cache_dir() -> Path:
    """Where built kernels lie: ``$XDG_CACHE_HOME/learned_opt``, by default in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "learned_opt"


def _build(command: list[str], library: Path) -> None:
    """Build beside the final place and rename, so that two processes may build at once."""
    library.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        built = Path(folder) / library.name
        subprocess.run([*command, "-o", str(built)], check=True, capture_output=True, text=True)
        built.replace(library)


@cache
def _processor() -> str:
    """What ``-march=native`` depends on; nodes of a cluster may share a home folder."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    return "\n".join(
        sorted({line for line in lines if line.startswith(("model name", "flags", "Features"))})
    )


@cache
def _warn_once(reason: str) -> None:
    log.warning("running without fused kernels (same results to rounding, slower): %s.", reason)
