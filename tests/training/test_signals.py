"""Signals while training runs: a checkpoint of the step in flight, and what each one does then."""

import os
import signal
from pathlib import Path

import lightning
import pytest
import torch

from learned_opt.training.callbacks.signals import Signals
from learned_opt.training.checkpoint_files import newest
from tests.training.test_trainer import STEPS, fit, make_module


class Send(lightning.Callback):
    """Sends this process a signal in the third outer step."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def on_train_batch_start(self, trainer, *_) -> None:
        if trainer.global_step == 2:
            os.kill(os.getpid(), self.number)


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


def fitted(folder: Path, number: signal.Signals) -> tuple[lightning.Trainer, Signals]:
    signals = Signals()
    return fit(make_module("sgdm"), folder, signals, Send(number)), signals


def test_sigterm_saves_and_stops_and_the_run_can_go_on(tmp_path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    trainer, signals = fitted(tmp_path, signal.SIGTERM)
    assert (signals.stopped_by, trainer.global_step) == (signal.SIGTERM, 3)
    assert signal.getsignal(signal.SIGTERM) is before
    straight, resumed = make_module("sgdm"), make_module("sgdm")
    fit(straight, tmp_path / "straight")
    fit(resumed, tmp_path, ckpt=newest(tmp_path / "checkpoints"))
    assert all(torch.equal(straight.theta[name], resumed.theta[name]) for name in straight.theta)


def saved_steps(folder: Path) -> set[str]:
    return {path.name for path in (folder / "checkpoints").glob("*.ckpt")}


def test_sigterm_under_slurm_saves_and_runs_on(tmp_path, monkeypatch, caplog) -> None:
    """Slurm ends a pre-empted job itself; one that ends by itself is not requeued."""
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    trainer, signals = fitted(tmp_path, signal.SIGTERM)
    assert (signals.stopped_by, trainer.global_step) == (None, STEPS)
    assert saved_steps(tmp_path) == {"step_3.ckpt", f"step_{STEPS}.ckpt"}
    assert "SIGTERM: saved at outer step 3; running on until Slurm ends the job" in caplog.text


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_user_signals_outside_slurm_save_and_run_on(tmp_path, number) -> None:
    trainer, signals = fitted(tmp_path, number)
    assert (signals.stopped_by, trainer.global_step) == (None, STEPS)
    assert saved_steps(tmp_path) == {"step_3.ckpt", f"step_{STEPS}.ckpt"}


def test_the_handler_that_was_there_gets_the_signal_after_the_checkpoint(tmp_path) -> None:
    """It stands for submitit's, which requeues the job and exits."""
    seen = []

    def requeue(number: int, _: object) -> None:
        seen.append((number, saved_steps(tmp_path)))
        raise SystemExit(255)

    before = signal.signal(signal.SIGUSR2, requeue)
    try:
        with pytest.raises(SystemExit):
            fitted(tmp_path, signal.SIGUSR2)
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert seen == [(signal.SIGUSR2, {"step_3.ckpt"})]


def test_a_job_without_such_a_handler_requeues_itself_and_waits_to_be_killed(
    tmp_path, monkeypatch
) -> None:
    command = tmp_path / "bin" / "scontrol"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "41")

    def killed() -> None:
        raise SystemExit(1)

    monkeypatch.setattr(signal, "pause", killed)
    with pytest.raises(SystemExit):
        fitted(tmp_path, signal.SIGUSR1)
    assert (tmp_path / "asked").read_text() == "requeue 41\n"
    assert saved_steps(tmp_path) == {"step_3.ckpt"}


@pytest.mark.parametrize("handler", [signal.SIG_DFL, signal.SIG_IGN])
def test_sighup_saves_and_stops_unless_it_is_ignored(tmp_path, handler) -> None:
    """A terminal that closes sends it; nohup has it ignored."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        trainer, signals = fitted(tmp_path, signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)
    is_ignored = handler is signal.SIG_IGN
    assert signals.stopped_by == (None if is_ignored else signal.SIGHUP)
    assert trainer.global_step == (STEPS if is_ignored else 3)
