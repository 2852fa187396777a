"""Lines that Lightning and torch print at every start and that say nothing about meta-training."""

import logging
import warnings

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
