"""``job.json``: what has become of a run, in its own folder.

A process that is killed leaves "running" behind; ``is_alive`` asks the queue or the process table
whether that is so.
"""

import json
import math
import os
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from learned_opt.core.errors import RunError, UsageError
from learned_opt.core.files import write_json
from learned_opt.core.json_files import read_json
from learned_opt.runtime import processes, slurm
from learned_opt.runtime.run_folder import RunFolder

Record = dict[str, Any]
MEND = "Remove the file, and the run counts as one that has not begun."
NOT_FINITE = ("inf", "-inf", "nan")  # what ``write`` makes of numbers that JSON has no word for
# of the keys that are read: types, and how a sentence names them
KINDS: dict[str, tuple[tuple[type, ...], str]] = {
    "state": ((str,), "a text"),
    "overrides": ((list,), "a list of texts"),
    "job": ((str, type(None)), "a text or null"),
    "host": ((str, type(None)), "a text"),
    "pid": ((int, type(None)), "a number"),
    "process": ((str, type(None)), "a text or null"),
    "error": ((str, type(None)), "a text"),
    "value": ((int, float, str, type(None)), "a number"),
}


def started(state: str, overrides: Sequence[str], job: str | None = None) -> Record:
    """The record of a run that begins here or, with ``job``, somewhere in Slurm."""
    return {
        "state": state,
        "overrides": list(overrides),
        "job": job or slurm.job_id(),
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "process": processes.start_of(os.getpid()),
        "started": time_stamp(),
    }


def read(folder: Path) -> Record:
    """The record of a run; empty where there is none.

    Raises:
        UsageError: the file is damaged, or it is none of ours.
    """
    path = RunFolder(folder).job
    try:
        # earlier versions wrote Infinity as a value
        record = read_json(path, strict=False)
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise UsageError(f"{error} {MEND}") from error

    if fault := _fault(record):
        raise UsageError(f"{path} is not the record of a run: {fault}. {MEND}")
    if isinstance(record.get("value"), str):
        record["value"] = float(record["value"])
    return record


def _fault(record: Any) -> str:
    """What is wrong with the content of a ``job.json``; empty where nothing is."""
    if not isinstance(record, dict):
        return f"it must be an object, it is {json.dumps(record)[:40]}"

    for key, (kinds, rule) in KINDS.items():
        value = record.get(key)
        # to Python a truth value is a number
        if not isinstance(value, kinds) or isinstance(value, bool):
            return f"{key} must be {rule}, it is {json.dumps(value)[:40]}"

    if not all(isinstance(word, str) for word in record["overrides"]):
        return "overrides must be a list of texts"
    if isinstance(record.get("value"), str) and record["value"] not in NOT_FINITE:
        return f"value must be a number, it is {json.dumps(record['value'])[:40]}"
    return ""


def write(folder: Path, record: Record) -> None:
    """Replace the record of a run in one move."""
    value = record.get("value")
    if isinstance(value, float) and not math.isfinite(value):
        record = record | {"value": str(value)}  # JSON has no word for it
    write_json(RunFolder(folder).job, record)


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
    return record["host"] == socket.gethostname() and _is_same_process(record)


def varying(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Of each job what sets it apart from the others, key -> value.

    >>> varying([["+task=mlp", "seed=0"], ["+task=mlp", "seed=1"]])
    [{'seed': '0'}, {'seed': '1'}]
    """
    settings = [values(words) for words in overrides]
    keys: dict[str, None] = {}
    for setting in settings:
        keys.update(dict.fromkeys(setting))

    varied = []
    for key in keys:
        if len({setting.get(key) for setting in settings}) > 1:
            varied.append(key)

    apart = []
    for setting in settings:
        apart.append({key: setting.get(key, "") for key in varied})

    return apart


def values(words: Sequence[str]) -> dict[str, str]:
    """What overrides set, key -> value."""
    settings = {}
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        settings[key] = value
    return settings


def describe(error: BaseException) -> str:
    """An exception in one line; those that speak to people do without the name of their class."""
    text = " ".join(str(error).split())
    is_sentence = isinstance(error, UsageError | RunError)
    return text if is_sentence else f"{type(error).__name__}: {text}"


def time_stamp() -> str:
    """The present time with its zone, to the second."""
    return datetime.now().astimezone().isoformat(timespec="seconds")


def _is_same_process(record: Record) -> bool:
    """Whether the process of a record runs on this machine, and not another one of its number."""
    start = processes.start_of(record["pid"])
    # records of earlier versions have the number alone
    return start is not None and record.get("process") in (start, None)
