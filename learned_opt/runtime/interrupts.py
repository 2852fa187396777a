"""What a signal does to a job where no outer step has to be finished first.

While meta-training runs, ``training/callbacks/signals.py`` hears the signals, with the functions
here for what it does not do itself: telling a person, ending at once, handing over to Slurm.
"""

import logging
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from signal import SIG_DFL, SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2
from typing import Any, NoReturn

from learned_opt.core.errors import PROGRAM, Interrupted
from learned_opt.runtime import current_job

ENDING = (SIGINT, SIGTERM, SIGHUP)  # each asks a process to end
REQUEUING = (SIGUSR1, SIGUSR2)  # a batch system sends one of them some time before the time limit
JOB_ID = "SLURM_JOB_ID"  # environment variable that Slurm sets
SHOW_CURSOR = "\x1b[?25h"  # a bar on a terminal hides it
NEW_COMMAND = "start the same command again."
WayOn = Callable[[], str]

_ways_on: list[WayOn] = []  # of what runs at present, the innermost last


@contextmanager
def way_on(text: WayOn) -> Iterator[None]:
    """What a signal that comes while the body runs is answered with.

    Args:
        text: makes it when the signal comes: what is kept, and the command that goes on.
    """
    _ways_on.append(text)
    try:
        yield
    finally:
        _ways_on.remove(text)


@contextmanager
def heard() -> Iterator[None]:
    """Answer signals while the body runs, but for those that somebody hears or ignores already.

    Raises:
        Interrupted: from wherever the body is when a signal asks the process to end.
    """
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():
        for number in (*ENDING, *REQUEUING):
            handler = signal.getsignal(number)
            if handler in (SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, hear)
    try:
        yield
    finally:
        for number, handler in before.items():
            # after a first signal a second one has to find its answer until the process is gone
            if signal.getsignal(number) is hear:
                signal.signal(number, handler)


def hear(number: int, _: Any) -> None:
    """The handler of ``heard``."""
    name = signal.Signals(number).name
    if number in REQUEUING:
        hand_over(number, hear, is_leader=True)
        tell(f"{name}: nothing to do outside of meta-training; running on")
        return
    # a job that ends by itself counts as completed and is not requeued after a pre-emption
    if number == SIGTERM and JOB_ID in os.environ:
        tell("SIGTERM: running on until Slurm ends the job")
        return

    end_at_next_signal()
    tell(f"\n{name}: ending; once more ends at once, without tidying up")
    raise Interrupted(number, _way_on())


def end_at_next_signal() -> None:
    """From here on a further signal ends this process at once."""
    for number in ENDING:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_at_once)


def end_at_once(number: int, _: Any) -> NoReturn:
    """Handler that says what is lost and ends the process, whatever it does at the moment."""
    if sys.stderr.isatty():
        sys.stderr.write(SHOW_CURSOR)
    tell(
        f"\n{PROGRAM}: ended at once; what was under way is lost, the files that were written "
        f"are whole. {_way_on()}"
    )
    current_job.end(current_job.stopped_by(signal.Signals(number)))
    os._exit(128 + number)  # as a shell tells a signal


def hand_over(number: int, handler: Any, *, is_leader: bool) -> None:
    """Have the job requeued, and wait to be killed; returns where nobody would requeue it.

    Args:
        number: signal of the batch system.
        handler: the one that was there before, such as submitit's, which requeues the job.
        is_leader: whether this is the rank that asks for it.
    """
    is_foreign = callable(handler) and handler is not hear
    if not is_foreign and JOB_ID not in os.environ:
        return

    if is_leader and is_foreign:
        handler(number, None)
    elif is_leader:
        subprocess.run(["scontrol", "requeue", os.environ[JOB_ID]], check=True)
    while True:  # to end by itself would complete the job
        signal.pause()


def tell(text: str) -> None:
    """Print on stderr and into the log file, as after SIGHUP there may be no terminal any more."""
    try:
        print(text, file=sys.stderr, flush=True)
    except OSError:
        # whatever is printed from here on would fail in the same way
        for stream in (1, 2):
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)

    record = logging.makeLogRecord({"name": __name__, "levelname": "WARNING", "msg": text.strip()})
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            with suppress(OSError):
                handler.handle(record)


def _way_on() -> str:
    return _ways_on[-1]() if _ways_on else f"To go on, {NEW_COMMAND}"
