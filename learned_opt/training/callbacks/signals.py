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

from learned_opt.estimators.share import Share

log = logging.getLogger(__name__)

HEARD = (SIGINT, SIGTERM, SIGUSR1, SIGUSR2)
REQUEUES = {SIGUSR1, SIGUSR2}  # a batch system sends one of them some time before the time limit


class Signals(Callback):
    """What a signal does once the outer step in flight is done and a checkpoint is written.

    Ctrl-C ends training; a second one ends at once. SIGTERM ends training too, but under Slurm training goes on until
    Slurm kills it: a job that ends by itself counts as completed and is not requeued after a pre-emption. SIGUSR1 and
    SIGUSR2 are handed on to the handler that was there before, such as submitit's, which requeues the job; without one
    the job is requeued here, and outside Slurm they do nothing more than write the checkpoint.

    Put it behind the callback that writes checkpoints, which looks at ``pending``.

    Attributes:
        pending: signals of any rank that wait for a checkpoint; the same on all ranks.
        stopped_by: the signal that ended training, None if none did.
    """

    def __init__(self) -> None:
        self.pending: set[signal.Signals] = set()
        self.stopped_by: signal.Signals | None = None
        self._received: set[signal.Signals] = set()
        self._previous: dict[signal.Signals, Any] = {}
        self._under_slurm = "SLURM_JOB_ID" in os.environ

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Remember the handlers that are there before Lightning sets its own."""
        heard = (
            HEARD if trainer.is_global_zero else HEARD[1:]
        )  # all ranks learn of a Ctrl-C from the first
        self._previous = {number: signal.getsignal(number) for number in heard}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take over from Lightning."""
        for number in self._previous:
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: Any) -> None:
        self._received.add(signal.Signals(number))
        if number == SIGINT:
            signal.signal(SIGINT, self._previous[SIGINT])
            print(
                "\nfinishing this outer step, then saving; Ctrl-C again to quit at once",
                file=sys.stderr,
            )

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Tell the other ranks, and stop when asked to."""
        flags = torch.tensor(
            [float(number in self._received) for number in HEARD], device=pl_module.device
        )
        told = Share(trainer.global_rank, trainer.world_size).total(flags).tolist()
        self.pending = {number for number, count in zip(HEARD, told, strict=True) if count}
        self._received -= self.pending
        stopping = [number for number in (SIGINT, SIGTERM) if number in self.pending]
        if stopping and not (stopping == [SIGTERM] and self._under_slurm):
            self.stopped_by = stopping[0]
            trainer.should_stop = True

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        """Do what had to wait for the checkpoint."""
        for number in self.pending & {SIGTERM, *REQUEUES}:
            what = "running on until Slurm ends the job" if number == SIGTERM else "handing over"
            log.warning("%s: saved at outer step %d; %s", number.name, trainer.global_step, what)
        for number in self.pending & REQUEUES:
            self._hand_over(number, trainer.is_global_zero)
        self.pending = set()

    def _hand_over(self, number: signal.Signals, leads: bool) -> None:
        previous = self._previous[number]
        if not callable(previous) and not self._under_slurm:
            return
        if leads and callable(previous):
            previous(number, None)
        elif leads:
            subprocess.run(["scontrol", "requeue", os.environ["SLURM_JOB_ID"]], check=True)
        while True:  # to end by itself would complete the job
            signal.pause()

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the signals back, also after an error."""
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
