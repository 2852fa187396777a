"""What a reader needs to run the same thing again."""

import platform

import lightning
import torch

from learned_opt.runtime.code_state import code_state


def provenance(seed: int, device: torch.device | str, command: str) -> dict[str, str]:
    """Command, seed, versions and machine of this process.

    Args:
        seed: root of the random draws.
        device: that the run is on.
        command: as a reader would type it.
    """
    return {
        "command": command,
        "seed": str(seed),
        "git": git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "lightning": lightning.__version__,
        "machine": f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads",
        "device": str(device),
    }


def git_revision() -> str:
    """Commit of the checkout, marked when files differ from it; ``unknown`` outside of one.

    It is that of the code when the run began, not of files that were edited since.
    """
    return code_state().revision
