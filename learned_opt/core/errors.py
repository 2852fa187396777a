"""Errors that a person can act on: one sentence and an exit code, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from signal import Signals
from typing import NoReturn

PROGRAM = "learned_opt"
MAX_WORD = 500  # letters


class UsageError(Exception):
    """Something the person at the keyboard can mend; shown as one sentence, exit code 2."""


class RunError(Exception):
    """A run that cannot go on; shown as one sentence, exit code 1."""


class Interrupted(BaseException):
    """A signal has asked this process to end, and is answered as soon as all is tidied up.

    No ``KeyboardInterrupt``, which libraries answer in ways of their own.

    Args:
        number: the signal.
        way_on: what is kept, and the command that goes on.
    """

    def __init__(self, number: int, way_on: str) -> None:
        super().__init__(number, way_on)
        self.number = Signals(number)
        self.way_on = way_on


def _cut(word: str) -> str:
    """A word of a sentence; what somebody has pasted by mistake is not repeated whole."""
    return word if len(word) <= MAX_WORD else f"{word[:100]}..."


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line on the error stream and end the process with a code."""
    words = [_cut(word) for word in message.split()]
    print(f"{PROGRAM}: {' '.join(words)}", file=sys.stderr)
    sys.exit(code)


@contextmanager
def usage_errors(key: str = "") -> Iterator[None]:
    """Turn what constructors raise into a ``UsageError``: their arguments came from a person.

    Args:
        key: of the config, from which the arguments came; the sentence begins with it.

    Raises:
        UsageError: the block raised ValueError, TypeError, FileNotFoundError or ConnectionError.

    >>> with usage_errors():
    ...     raise ValueError("sigma must be positive, got -1.")
    Traceback (most recent call last):
    learned_opt.core.errors.UsageError: sigma must be positive, got -1.
    """
    where = f"{key}: " if key else ""
    try:
        yield
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        raise UsageError(f"{where}{error}") from error
    except TypeError as error:  # what Python says about a call with an unknown argument
        raise UsageError(
            f"{where}a value has the wrong type or a key is unknown: {error}."
        ) from error
