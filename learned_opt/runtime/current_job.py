"""The record of the job that this process runs, whatever ends the process.

A kill that cannot be heard leaves "running" behind; ``job_file.is_alive`` then finds no process.
"""

import os
import signal
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from learned_opt.core.errors import PROGRAM, Interrupted, UsageError
from learned_opt.runtime import job_file

# folder and process of the job while it runs: a process that is forked must not speak for it
_running: list[tuple[Path, int]] = []


def recorded(
    folder: Path, overrides: Sequence[str], function: Callable[..., Any], *arguments: Any
) -> Any:
    """Call a function, and keep ``job.json`` of its folder up to date until it ends.

    Args:
        folder: of the run.
        overrides: words of its command line.
        function: the job.
        *arguments: its own.

    Returns:
        what the function returns.
    """
    job_file.write(folder, job_file.started("running", overrides))
    _running.append((folder, os.getpid()))
    try:
        value = function(*arguments)
        end({"state": "finished", "value": value})
    except BaseException as error:  # an interrupt and an exit are ends like others
        end(_outcome(error))
        raise
    return value


def end(outcome: job_file.Record) -> None:
    """Write what has become of the job; the first word counts.

    Args:
        outcome: its state, with its value or the error.
    """
    if not _running or _running[-1][1] != os.getpid():
        return
    folder, _ = _running.pop()
    try:
        ended = {"ended": job_file.time_stamp()}
        job_file.write(folder, job_file.read(folder) | outcome | ended)
    except (OSError, UsageError) as error:
        # such as a full disk, which must not hide why the job ended
        print(f"{PROGRAM}: {folder} cannot be told of its end: {error}", file=sys.stderr)


def stopped_by(number: signal.Signals) -> job_file.Record:
    """What ``end`` takes after a signal."""
    return {"state": "stopped", "error": f"stopped by {number.name}"}


def _outcome(error: BaseException) -> job_file.Record:
    if isinstance(error, KeyboardInterrupt):
        return stopped_by(signal.SIGINT)
    if isinstance(error, Interrupted):
        return stopped_by(error.number)
    if not isinstance(error, SystemExit):
        return {"state": "failed", "error": job_file.describe(error)}

    code = error.code
    if isinstance(code, int) and code > 128:  # as a shell tells a signal
        with suppress(ValueError):
            return stopped_by(signal.Signals(code - 128))
    return {"state": "failed", "error": f"it ended with exit code {code or 0}"}
