"""``job.json``: what has become of a run, in its own folder.

A process that is killed leaves "running" behind; ``is_alive`` asks the queue or the process table whether that is so.
"""

import json
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from learned_opt.core.errors import UsageError
from learned_opt.runtime import slurm

FILE = "job.json"
Record = dict[str, Any]


def started(state: str, overrides: Sequence[str], job: str | None = None) -> Record:
    """The record of a run that begins here or, with ``job``, somewhere in Slurm."""
    where = {"job": job or slurm.job_id(), "host": socket.gethostname(), "pid": os.getpid()}
    return {"state": state, "overrides": list(overrides), **where, "started": _now()}


def read(folder: Path) -> Record:
    """The record of a run; empty where there is none."""
    try:
        return json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return {}


def write(folder: Path, record: Record) -> None:
    """Replace the record of a run in one move."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(partial, folder / FILE)


def is_finished(record: Record) -> bool:
    """Whether the run has come to its end."""
    return record.get("state") == "finished"


def is_of_another(record: Record, overrides: Sequence[str]) -> bool:
    """Whether the folder is that of a run with other overrides."""
    return bool(record) and sorted(record["overrides"]) != sorted(overrides)


def earlier(folder: Path, overrides: Sequence[str]) -> Record:
    """The record that a job of a sweep finds in its folder.

    Raises:
        UsageError: it is of another run; the two would go on from each other's checkpoint.
    """
    record = read(folder)
    if is_of_another(record, overrides):
        theirs = " ".join(record["overrides"])
        raise UsageError(f"{folder} holds another run ({theirs}); choose another hydra.sweep.dir.")
    return record


def is_alive(record: Record, queue: Mapping[str, str]) -> bool:
    """Whether a run that says so is still going on, or is still to begin.

    Args:
        record: its ``job.json``.
        queue: Slurm's jobs, id -> state; empty where there is no Slurm.
    """
    if record.get("state") not in ("running", "submitted"):
        return False
    if record["job"]:
        return slurm.is_alive(queue.get(record["job"]))
    return record["host"] == socket.gethostname() and _process_exists(record["pid"])


def varying(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Of each job what sets it apart from the others, key -> value."""
    split = []
    for words in overrides:
        pairs = (word.lstrip("+~").partition("=") for word in words)
        split.append({key: value for key, _, value in pairs})
    keys = dict.fromkeys(key for own in split for key in own)
    return [
        {key: own.get(key, "") for key in keys if len({o.get(key) for o in split}) > 1}
        for own in split
    ]


def describe(error: BaseException) -> str:
    """An exception in one line; those that speak to people do without the name of their class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UsageError) else f"{type(error).__name__}: {text}"


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
