"""What a process knows of the cluster that it runs on: its rank, its job, the queue."""

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

QUEUE_COMMAND = [
    "squeue",
    "--noheader",
    "--array",
    "--states=all",
    f"--user={os.getuid()}",
    "--format=%i|%T",
]


def is_first_rank() -> bool:
    """Whether this process is the first of its job, or alone, whoever started it."""
    names = ("SLURM_PROCID", "SUBMITIT_LOCAL_GLOBALID", "RANK", "LOCAL_RANK")
    return all(os.environ.get(name, "0") == "0" for name in names)


def num_ranks() -> int:
    """Processes that were started together with this one, itself included."""
    names = ("SLURM_STEP_NUM_TASKS", "WORLD_SIZE")
    return max(int(os.environ.get(name, "1")) for name in names)


def job_id() -> str | None:
    """Id of the Slurm job of this process, None outside of Slurm.

    That of an element of an array is such as ``5_0``.
    """
    array = os.environ.get("SLURM_ARRAY_JOB_ID")
    if array:
        return f"{array}_{os.environ.get('SLURM_ARRAY_TASK_ID')}"
    return os.environ.get("SLURM_JOB_ID")


def is_alive(state: str | None) -> bool:
    """Whether a job in this state runs or will run.

    Args:
        state: None is that of a job that Slurm has forgotten.
    """
    return state is not None and state not in ENDED


def parse_queue(text: str) -> dict[str, str]:
    """Job id -> state, out of what QUEUE_COMMAND prints.

    >>> parse_queue("5_0|RUNNING")
    {'5_0': 'RUNNING'}
    """
    states = {}
    for line in text.splitlines():
        if "|" in line:
            job, state = line.strip().split("|")
            states[job] = state
    return states


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
