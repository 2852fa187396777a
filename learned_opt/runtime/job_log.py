"""The log file of a job, for what the terminal shows in another form or not at all."""

import logging
from contextlib import suppress

NAME = "learned_opt"


def write(text: str, error: BaseException | None = None) -> None:
    """Add a line to the log file of the job that this process runs; nothing where it has none.

    Args:
        text: the line.
        error: its traceback is added.
    """
    fields = {"name": NAME, "levelname": "INFO", "levelno": logging.INFO, "msg": text}
    if error is not None:
        fields |= {"levelname": "ERROR", "levelno": logging.ERROR}
        fields["exc_info"] = (type(error), error, error.__traceback__)

    record = logging.makeLogRecord(fields)
    for handler in logging.getLogger().handlers:
        if isinstance(handler, logging.FileHandler):
            with suppress(OSError):  # such as a full disk, which must not hide how the job ended
                handler.handle(record)
