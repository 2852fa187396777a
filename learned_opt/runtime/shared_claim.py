"""Tells the folder that the first rank of a run has claimed to the ranks started beside it.

srun and torchrun start the command line in every rank. Each composes a folder whose name has the
time in it, and only the first one may take it: a second too late, or where it is taken already, the
ranks would write into different folders.
"""

import atexit
import os
import time
from pathlib import Path

from learned_opt.core.errors import UsageError
from learned_opt.core.files import write_text
from learned_opt.runtime import slurm

PATIENCE = 120.0  # seconds in which the first rank must have claimed its folder


def tell(above: Path, folder: Path) -> None:
    """Leave a note for the other ranks; there is none to leave where this process is alone.

    Args:
        above: a folder that is the same in all ranks, on a file system that they share.
        folder: that the first rank has claimed.

    Raises:
        OSError: the note cannot be written.
    """
    if slurm.num_ranks() == 1:
        return
    note = _note(above)
    write_text(note, str(folder))
    atexit.register(note.unlink, missing_ok=True)


def ask(above: Path, patience: float = PATIENCE) -> Path:
    """The folder that the first rank has claimed, as soon as it has told so.

    Args:
        above: as in ``tell``.
        patience: seconds to wait for the note.

    Raises:
        UsageError: no note has come.
    """
    note = _note(above)
    begun = time.time()
    while time.time() < begun + patience:
        try:
            # one that an earlier run has left, under the same name, is older
            if note.stat().st_mtime > begun - PATIENCE:
                return Path(note.read_text())
        except FileNotFoundError:
            pass
        time.sleep(0.05)
    raise UsageError(
        f"the first rank has claimed no folder in {above} within {patience:g} seconds; see what it "
        "says, or set hydra.run.dir to a folder without a time in its name."
    )


def _note(above: Path) -> Path:
    return above / f".claim-{_start()}"


def _start() -> str:
    """A name of the start, the same in all ranks of it and in no other start."""
    variables = os.environ
    if "SLURM_STEP_ID" in variables:
        names = ("SLURM_JOB_ID", "SLURM_STEP_ID", "SLURM_RESTART_COUNT")
        return "-".join(variables.get(name, "0") for name in names)

    names = ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT", "MASTER_ADDR", "MASTER_PORT")
    parts = [variables.get(name, "0") for name in names]
    if variables.get("LOCAL_WORLD_SIZE") == variables.get("WORLD_SIZE"):
        parts.append(str(os.getppid()))  # all ranks have one parent, which no other start has
    return "-".join(parts).replace("/", "_")
