"""Errors that a person can act on: one sentence and an exit code, no traceback."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

PROGRAM = "learned_opt"


class UsageError(Exception):
    """Something the person at the keyboard can mend; shown as one sentence, exit code 2."""


class RunError(Exception):
    """A run that cannot go on; shown as one sentence, exit code 1."""


def fail(message: str, code: int = 2) -> NoReturn:
    """Print one line on the error stream and end the process with a code."""
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
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
