"""Output that outlives its reader: a run that is piped into ``head`` goes on to its end."""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO


class LastingOutput:
    """A stream that drops what nobody reads any more.

    Args:
        stream: where to write; a file of the system.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    def __getattr__(self, name: str) -> Any:
        """Everything else is that of the stream."""
        return getattr(self.stream, name)

    def write(self, text: str) -> int:
        """Write, as long as there is a reader."""
        try:
            return self.stream.write(text)
        except BrokenPipeError:
            self._drop()
            return len(text)

    def writelines(self, lines: Iterable[str]) -> None:
        """Write several texts."""
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        """Hand on what was written, as long as there is a reader."""
        try:
            self.stream.flush()
        except BrokenPipeError:
            self._drop()

    def _drop(self) -> None:
        """From here on write to nowhere, also what other holders of the stream write."""
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, self.stream.fileno())
        os.close(nowhere)


@contextmanager
def lasting_output() -> Iterator[None]:
    """Have stdout and stderr outlive their readers while the body runs."""
    before = (sys.stdout, sys.stderr)
    sys.stdout = LastingOutput(sys.stdout)  # pyright: ignore[reportAttributeAccessIssue]
    sys.stderr = LastingOutput(sys.stderr)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        sys.stdout, sys.stderr = before
