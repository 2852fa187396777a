"""Signals take effect between outer steps, on all ranks alike."""

import logging
import os
import signal
from signal import SIGHUP, SIGINT, SIGTERM
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from learned_opt.estimators.share import Share
from learned_opt.runtime import interrupts
from learned_opt.runtime.interrupts import JOB_ID, REQUEUING
from learned_opt.training.trainer import meta_trainer

log = logging.getLogger(__name__)

HEARD = (*interrupts.ENDING, *REQUEUING)


class Signals(Callback):
    """What a signal does once the outer step in flight is done and a checkpoint is written.

    Ctrl-C ends training; a second one ends at once. SIGHUP, which comes when a terminal closes,
    ends training unless nohup has it ignored. SIGTERM ends training too, but under Slurm
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
        for number in HEARD:
            handler = signal.getsignal(number)
            is_for_leader = number == SIGINT and not trainer.is_global_zero
            is_ignored = number == SIGHUP and handler is signal.SIG_IGN
            if not is_for_leader and not is_ignored:
                self._previous[number] = handler

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        for number in self._previous:
            signal.signal(number, self._receive)

    def _receive(self, number: int, _: Any) -> None:
        self._received.add(signal.Signals(number))
        if number in (SIGINT, SIGHUP):
            # a second Ctrl-C is not waited for
            signal.signal(SIGINT, interrupts.end_at_once)
            interrupts.tell(
                "\nfinishing this outer step, then saving; Ctrl-C again to quit at once"
            )

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        pending = self._received_by_any_rank(trainer, pl_module.device)
        meta_trainer(pl_module).pending_signals = pending
        self._received -= pending

        for number in interrupts.ENDING:
            runs_on = number == SIGTERM and self._under_slurm
            if number in pending and not runs_on and not self.stopped_by:
                self.stopped_by = number
                trainer.should_stop = True

    @override
    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, *_: Any, **__: Any
    ) -> None:
        # by now the checkpoint is written
        module = meta_trainer(pl_module)
        for number in module.pending_signals & {SIGTERM, *REQUEUING}:
            is_end = number == SIGTERM
            action = "running on until Slurm ends the job" if is_end else "handing over"
            log.warning("%s: saved at outer step %d; %s", number.name, trainer.global_step, action)

        for number in module.pending_signals & {*REQUEUING}:
            previous = self._previous[number]
            interrupts.hand_over(number, previous, is_leader=trainer.is_global_zero)
        module.pending_signals = set()

    def _received_by_any_rank(self, trainer: Trainer, device: torch.device) -> set[signal.Signals]:
        """The signals that came since the last outer step; the same on all ranks."""
        flags = torch.zeros(len(HEARD), device=device)
        for position, number in enumerate(HEARD):
            flags[position] = float(number in self._received)

        counts = Share(trainer.global_rank, trainer.world_size).total(flags).tolist()
        return {number for number, count in zip(HEARD, counts, strict=True) if count}

    @override
    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        # comes after an error too
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        self._previous = {}
