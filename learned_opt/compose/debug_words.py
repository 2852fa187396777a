"""The values of ``+debug=NAME`` as words of a command line, for the tasks of a mix.

A task of a mix brings sizes of its own, which lie over those of the run, but not over words.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from learned_opt.compose import config_files, hydra_job

GROUP = "debug"


def debug_words() -> list[str]:
    """``KEY=VALUE`` of every value of the debug file of this job; none without one."""
    name = hydra_job.choice(GROUP)
    if name is None:
        return []

    words = []
    for folder in config_files.folders():
        file = Path(folder) / GROUP / f"{name}.yaml"
        if file.is_file():
            words = _words(yaml.safe_load(file.read_text()), "")
            break
    return words


def _words(values: Mapping[str, Any], prefix: str) -> list[str]:
    words = []
    for name, value in values.items():
        if name in ("defaults", "hydra") and not prefix:
            continue
        if isinstance(value, Mapping):
            words += _words(value, f"{prefix}{name}.")
        else:
            words.append(f"{prefix}{name}={value}")
    return words
