"""What a reader needs to run the same thing again."""

import platform
import subprocess
import sys
from pathlib import Path

import lightning
import torch
from hydra.core.hydra_config import HydraConfig

from learned_opt import jobs
from learned_opt.cli import PACKAGE


def provenance(seed: int, device: torch.device) -> dict[str, str]:
    """Command, seed, versions and machine of this process."""
    return {
        "command": " ".join(["python -m", *command_words()]),
        "seed": str(seed),
        "git": git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "device": str(device),
    }


def command_words() -> list[str]:
    """Module and arguments of this process, without the path of the machine."""
    module = getattr(sys.modules["__main__"], "__spec__", None)
    if module and module.name.startswith("submitit."):  # a job of a sweep
        hydra = HydraConfig.get()
        return [jobs.module(hydra), *hydra.overrides.task]
    return [(module.name if module else Path(sys.argv[0]).name).removesuffix(".__main__"), *sys.argv[1:]]


def git_revision() -> str:
    """Commit of the checkout, marked when files differ from it; ``unknown`` outside of one."""
    command = ["git", "-C", str(PACKAGE.parent), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
