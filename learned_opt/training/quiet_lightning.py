"""Lines that Lightning and torch print at every start and that say nothing about meta-training."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

LOGGERS = ("lightning", "lightning.pytorch", "lightning.fabric")
MESSAGES = (
    ".*does not have many workers.*",  # the batches are dummies
    ".*Experiment logs directory.*",  # Hydra made it a moment ago
    ".*dataloader is not resumable.*",
    ".*resuming from a checkpoint that ended before the epoch.*",
    ".*srun.*command is available.*",
    ".*isinstance.treespec, LeafSpec.*",
    ".*torch._prims_common.check.*",  # torch itself, while it compiles
)


def quiet_lightning() -> None:
    """Silence them for this process."""
    for name in LOGGERS:
        logger = logging.getLogger(name)
        logger.handlers.clear()  # under Hydra every line would come twice
        logger.setLevel(logging.WARNING)

    for message in MESSAGES:
        warnings.filterwarnings("ignore", message)


@contextmanager
def quiet_for_a_while() -> Iterator[None]:
    """Silence them while the body runs, in a process that is somebody else's."""
    loggers = [logging.getLogger(name) for name in LOGGERS]
    kept = [(logger, logger.handlers[:], logger.level) for logger in loggers]
    with warnings.catch_warnings():
        quiet_lightning()
        try:
            yield
        finally:
            for logger, handlers, level in kept:
                logger.handlers[:] = handlers
                logger.setLevel(level)
