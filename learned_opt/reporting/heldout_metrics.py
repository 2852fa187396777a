"""Held-out figures for loggers that know nothing of tables, read from the files of the run."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities import rank_zero_only

from learned_opt.reporting.record import Record, read_record
from learned_opt.reporting.wandb_upload import heldout_means


@contextmanager
def logged_at_end(loggers: Sequence[Logger], path: Path) -> Iterator[None]:
    """At the end, an early one too, log the means over held-out seeds and end the loggers.

    Args:
        loggers: such as TensorBoard and MLflow.
        path: run folder; without an evaluation in it, nothing is logged.
    """
    status = "failed"  # until the body has come to its end
    try:
        yield
        status = "success"
    finally:
        _log(loggers, path)
        for logger in loggers:
            logger.finalize(status)


@rank_zero_only
def _log(loggers: Sequence[Logger], path: Path) -> None:
    try:
        record = read_record(path)
    except ValueError:  # the run was stopped before it had written anything
        return
    if record.results is None:
        return

    figures = heldout_means(record.results)
    for logger in loggers:
        logger.log_metrics(figures, _last_step(record))


def _last_step(record: Record) -> int:
    """The number of the last outer step, as the other figures have it; 0 of an evaluation."""
    outer_steps = record.metadata.get("provenance", {}).get("outer_steps", "1")
    return max(0, int(outer_steps) - 1)
