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
    """Print one line and exit."""
    print(f"{PROGRAM}: {' '.join(message.split())}", file=sys.stderr)
    sys.exit(code)


@contextmanager
def usage_errors() -> Iterator[None]:
    """What constructors refuse is bad input: one sentence, exit code 2."""
    try:
        yield
    except (ValueError, FileNotFoundError, ConnectionError) as error:
        raise UsageError(str(error)) from error
    except TypeError as error:
        raise UsageError(f"a value has the wrong type or a key is unknown: {error}.") from error
