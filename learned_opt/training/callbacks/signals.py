"""Signals take effect between outer steps, on all ranks alike."""

import logging
import os
import signal
import subprocess
import sys
from signal import SIGINT, SIGTERM, SIGUSR1, SIGUSR2
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.estimators.share import Share
from learned_opt.training.trainer import meta_trainer

log = logging.getLogger(__name__)

HEARD = (SIGINT, SIGTERM, SIGUSR1, SIGUSR2)
REQUEUES = {SIGUSR1, SIGUSR2}  # a batch system sends one of them some time before the time limit
JOB_ID = "SLURM_JOB_ID"  # environment variable that Slurm sets


class Signals(Callback):
    """What a signal does once the outer step in flight is done and a checkpoint is written.

    Ctrl-C ends training; a second one ends at once. SIGTERM ends training too, but under Slurm
    training goes on until Slurm kills it: a job that ends by itself counts as completed and is
    not requeued after a pre-emption. SIGUSR1 and SIGUSR2 are handed on to the handler that was
    there before, such as submitit's, which requeues the job; without one the job is requeued
    here, and outside Slurm they do nothing more than write the checkpoint.

    Put it behind the callback that writes checkpoints, which looks at the module's
    ``pending_signals``.

    Attributes:
        stopped_by: the signal that ended training, None if none did.
    """

    def __init__(self) -> None:
        self.stopped_by: signal.Signals | None = None
        self._received: set[signal.Signals] = set()
        self._previous: dict[signal.Signals, Any] = {}
        self._under_slurm = JOB_ID in os.environ

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # the handlers that are there before Lightning sets its own; all ranks but the leader
        # learn of a Ctrl-C from the leader
        heard = HEARD if trainer.is_global_zero else HEARD[1:]
        self._previous = {number: signal.getsignal(number) for number in heard}

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in self._previous:
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: Any) -> None:
        self._received.add(signal.Signals(number))
        if number == SIGINT:
            signal.signal(SIGINT, self._previous[SIGINT])
            message = "\nfinishing this outer step, then saving; Ctrl-C again to quit at once"
            print(message, file=sys.stderr)

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        pending = self._received_by_any_rank(trainer, pl_module.device)
        meta_trainer(pl_module).pending_signals = pending
        self._received -= pending

        if SIGINT in pending:
            self.stopped_by = SIGINT
            trainer.should_stop = True
        elif SIGTERM in pending and not self._under_slurm:
            self.stopped_by = SIGTERM
            trainer.should_stop = True

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        # by now the checkpoint is written
        module = meta_trainer(pl_module)
        for number in module.pending_signals & {SIGTERM, *REQUEUES}:
            is_end = number == SIGTERM
            action = "running on until Slurm ends the job" if is_end else "handing over"
            log.warning("%s: saved at outer step %d; %s", number.name, trainer.global_step, action)

        for number in module.pending_signals & REQUEUES:
            self._hand_over(number, trainer.is_global_zero)
        module.pending_signals = set()

    def _received_by_any_rank(self, trainer: Trainer, device: torch.device) -> set[signal.Signals]:
        """The signals that came since the last outer step; the same on all ranks."""
        flags = torch.zeros(len(HEARD), device=device)
        for position, number in enumerate(HEARD):
            flags[position] = float(number in self._received)

        counts = Share(trainer.global_rank, trainer.world_size).total(flags).tolist()
        return {number for number, count in zip(HEARD, counts, strict=True) if count}

    def _hand_over(self, number: signal.Signals, is_leader: bool) -> None:
        previous = self._previous[number]
        if not callable(previous) and not self._under_slurm:
            return

        if is_leader and callable(previous):
            previous(number, None)
        elif is_leader:
            subprocess.run(["scontrol", "requeue", os.environ[JOB_ID]], check=True)
        while True:  # to end by itself would complete the job
            signal.pause()

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # comes after an error too
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
