"""The record of the job that this process runs, whatever ends the process.

A kill that cannot be heard leaves "running" behind; ``job_file.is_alive`` then finds no process.
"""

import os
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from learned_opt.core.errors import PROGRAM, UsageError
from learned_opt.runtime import job_file

# end a process that does not ask to hear them
DEADLY = (signal.SIGTERM, signal.SIGHUP)
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
    heard = _hear_signals()
    try:
        value = function(*arguments)
        end({"state": "finished", "value": value})
    except BaseException as error:  # an interrupt and an exit are ends like others
        end(_outcome(error))
        raise
    finally:
        for number in heard:
            if signal.getsignal(number) is _stop:
                signal.signal(number, signal.SIG_DFL)
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


def _outcome(error: BaseException) -> job_file.Record:
    if isinstance(error, KeyboardInterrupt):
        return {"state": "stopped", "error": "stopped by SIGINT"}
    if not isinstance(error, SystemExit):
        return {"state": "failed", "error": job_file.describe(error)}

    code = error.code
    if isinstance(code, int) and code > 128:  # as a shell tells a signal
        with suppress(ValueError):
            return {"state": "stopped", "error": f"stopped by {signal.Signals(code - 128).name}"}
    return {"state": "failed", "error": f"it ended with exit code {code or 0}"}


def _hear_signals() -> list[signal.Signals]:
    """Write down that a signal ends this process, where nobody else hears it."""
    heard = []
    if threading.current_thread() is threading.main_thread():
        for number in DEADLY:
            if signal.getsignal(number) is signal.SIG_DFL:
                signal.signal(number, _stop)
                heard.append(number)
    return heard


def _stop(number: int, _: Any) -> None:
    name = signal.Signals(number).name
    end({"state": "stopped", "error": f"stopped by {name}"})

    # die of it, as whoever sent it expects
    signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
