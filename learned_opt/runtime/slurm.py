"""What a process knows of the cluster that it runs on: whether it is the first of its job, which job, the queue."""

import os
import shutil
import subprocess

# states that a job does not leave by itself; a pre-empted one goes back to the queue
ENDED = {
    "BOOT_FAIL",
    "CANCELLED",
    "COMPLETED",
    "DEADLINE",
    "FAILED",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "TIMEOUT",
}


def is_first_rank() -> bool:
    """Whether this process is the first of its job, or alone, whoever started it."""
    names = ("SLURM_PROCID", "SUBMITIT_LOCAL_GLOBALID", "RANK", "LOCAL_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def job_id() -> str | None:
    """Id of the Slurm job of this process, ``5_0`` for an element of an array; None outside of Slurm."""
    array, element = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{element}" if array else os.environ.get("SLURM_JOB_ID")


QUEUE_COMMAND = [
    "squeue",
    "--noheader",
    "--array",
    "--states=all",
    f"--user={os.getuid()}",
    "--format=%i|%T",
]


def is_alive(state: str | None) -> bool:
    """Whether a job in this state runs or will run; None is that of a job that Slurm has forgotten."""
    return state is not None and state not in ENDED


def parse_queue(text: str) -> dict[str, str]:
    """Job id -> state, out of what QUEUE_COMMAND prints."""
    return dict(line.strip().split("|") for line in text.splitlines() if "|" in line)


def queue() -> dict[str, str]:
    """Jobs of this user that Slurm's controller remembers, id -> state.

    Raises:
        OSError: there is no Slurm here, or it does not answer.
    """
    if shutil.which("squeue") is None:
        raise OSError("there is no squeue on this machine")
    result = subprocess.run(QUEUE_COMMAND, capture_output=True, text=True, timeout=60, check=False)
    if result.returncode:
        raise OSError(f"squeue does not answer: {result.stderr.strip()}")
    return parse_queue(result.stdout)
