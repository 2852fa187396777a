"""Ctrl-C where a person calls meta-training from Python: the process lives on."""

import signal
import sys
import threading
from typing import Any

from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override


class InterruptedTwice(BaseException):
    """A second Ctrl-C; no ``KeyboardInterrupt``, at which Lightning would end the process."""


class StopAtInterrupt(Callback):
    """Ends training after the outer step in flight, and at once at a second Ctrl-C.

    Other signals are left as they are, and so is everything outside of the main thread.

    Attributes:
        interrupted: whether there was one.

    Raises:
        InterruptedTwice: in the outer step in flight.
    """

    def __init__(self) -> None:
        self.interrupted = False
        self._previous: Any = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._receive)

    def _receive(self, number: int, _: Any) -> None:
        if self.interrupted:
            raise InterruptedTwice
        self.interrupted = True
        print("\nfinishing this outer step; interrupt again to end at once", file=sys.stderr)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        trainer.should_stop = trainer.should_stop or self.interrupted

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # comes after an error too
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)
            self._previous = None
