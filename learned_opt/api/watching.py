"""What looks on while a meta-training from Python runs: callbacks and loggers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import lightning
from lightning.pytorch.loggers import Logger

from learned_opt.api.arguments import check_count, shown
from learned_opt.training.callbacks.checkpoints import Checkpoints
from learned_opt.training.callbacks.divergence import StopWhenNothingIsFinite
from learned_opt.training.callbacks.gauges import Gauges
from learned_opt.training.callbacks.interrupt import StopAtInterrupt
from learned_opt.training.callbacks.progress import ProgressBar
from learned_opt.training.callbacks.signal_to_noise import SignalToNoise
from learned_opt.training.callbacks.throughput import Throughput
from learned_opt.training.callbacks.validation import Validation

# as in configs/callbacks
KEPT_CHECKPOINTS = 2
SIGNAL_DECAY = 0.9
PATIENCE = 10  # outer steps


@dataclass(frozen=True)
class Watching:
    """The arguments of ``meta_train`` that change no number.

    Args:
        checkpoint_every: as of ``meta_train``.
        validate_every: as of ``meta_train``.
        callbacks: as of ``meta_train``.
        logger: as of ``meta_train``.
        progress: as of ``meta_train``.

    Raises:
        TypeError: an argument is something else than what it must be.
        ValueError: a count is not positive.
    """

    checkpoint_every: int
    validate_every: int | None
    callbacks: Sequence[lightning.Callback]
    logger: Logger | Sequence[Logger] | None
    progress: bool

    def __post_init__(self) -> None:
        check_count(1, checkpoint_every=self.checkpoint_every)
        if self.validate_every is not None:
            check_count(1, validate_every=self.validate_every)
        for i, callback in enumerate(self.callbacks):
            if not isinstance(callback, lightning.Callback):
                raise TypeError(
                    f"callbacks[{i}] must be a lightning.Callback, got {shown(callback)}."
                )
        for each in self.loggers:
            if not isinstance(each, Logger):
                raise TypeError(
                    f"logger must be a Lightning logger or a list of them, got {shown(each)}."
                )

    @property
    def loggers(self) -> list[Logger]:
        """Those of the user."""
        if self.logger is None:
            return []
        return [self.logger] if isinstance(self.logger, Logger) else list(self.logger)

    def callbacks_of(self, folder: Path | None, stop: StopAtInterrupt) -> list[lightning.Callback]:
        """All callbacks, in the order in which they act, which is that of the commands."""
        parts: list[lightning.Callback] = []
        if folder is not None:
            parts.append(Checkpoints(self.checkpoint_every, KEPT_CHECKPOINTS))
        parts += [Throughput(), Gauges(), SignalToNoise(SIGNAL_DECAY)]
        if self.validate_every is not None:
            parts.append(Validation(self.validate_every))
        parts += [StopWhenNothingIsFinite(PATIENCE), stop]
        if self.progress:
            parts.append(ProgressBar())
        return [*parts, *self.callbacks]
