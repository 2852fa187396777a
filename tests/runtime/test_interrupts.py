"""Signals to processes outside of meta-training: real ones, to children that are forked."""

import logging
import os
import pty
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from learned_opt.commands import cli
from learned_opt.runtime import interrupts

LONG = 60.0  # seconds that nobody waits for
DEFAULTS = {
    signal.SIGINT: signal.default_int_handler,
    signal.SIGTERM: signal.SIG_DFL,
    signal.SIGHUP: signal.SIG_DFL,
    signal.SIGUSR1: signal.SIG_DFL,
    signal.SIGUSR2: signal.SIG_DFL,
}
WAY_ON = "runs are kept. To go on:\n  the command"


@pytest.fixture(autouse=True)
def no_slurm(monkeypatch) -> None:
    monkeypatch.delenv("SLURM_JOB_ID", raising=False)


class Child:
    """A forked process that runs a function under the handlers, as a job does.

    Args:
        folder: where its stderr goes.
        function: called with another one, which tells that the child is ready.
        ignored: a signal that nohup and the like ignore.
    """

    def __init__(
        self,
        folder: Path,
        function: Callable[[Callable[[], None]], None],
        ignored: signal.Signals | None = None,
    ) -> None:
        self.said = folder / "stderr.txt"
        self.ready = folder / "ready"
        self.pid = os.fork()
        if not self.pid:
            self._run(function, ignored)

    def _run(
        self, function: Callable[[Callable[[], None]], None], ignored: signal.Signals | None
    ) -> NoReturn:
        code = 99
        try:
            for number, handler in DEFAULTS.items():
                signal.signal(number, signal.SIG_IGN if number == ignored else handler)
            sys.stderr = self.said.open("w")
            with interrupts.heard(), interrupts.way_on(lambda: WAY_ON):
                cli.answer(function, self.ready.touch)
            code = 0
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 98
        finally:
            sys.stderr.flush()
            os._exit(code)

    def send(self, number: int) -> None:
        """Wait until the child is ready, then send it a signal."""
        deadline = time.monotonic() + LONG
        while not self.ready.exists():
            assert time.monotonic() < deadline
            time.sleep(0.01)
        self.ready.unlink()
        os.kill(self.pid, number)

    def end(self) -> tuple[int, str]:
        """Its exit code, and what it said."""
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        return code, self.said.read_text()


def wait(ready: Callable[[], None]) -> None:
    ready()
    time.sleep(LONG)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_job_with_a_way_on(tmp_path, number) -> None:
    child = Child(tmp_path, wait)
    child.send(number)
    code, said = child.end()
    assert code == 128 + number
    assert said == (
        f"\n{number.name}: ending; once more ends at once, without tidying up\n"
        f"learned_opt: stopped by {number.name}. {WAY_ON}\n"
    )


def test_a_second_one_ends_at_once_and_says_so(tmp_path) -> None:
    def slow_to_tidy_up(ready: Callable[[], None]) -> None:
        try:
            wait(ready)
        finally:
            wait(ready)

    child = Child(tmp_path, slow_to_tidy_up)
    child.send(signal.SIGINT)
    child.send(signal.SIGINT)
    code, said = child.end()
    assert code == 130
    assert said.endswith(
        "\nlearned_opt: ended at once; what was under way is lost, the files that were written "
        f"are whole. {WAY_ON}\n"
    )


def returns_after_a_signal(ready: Callable[[], None]) -> None:
    ready()
    time.sleep(0.5)


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGUSR2])
def test_signals_of_batch_systems_do_nothing_elsewhere(tmp_path, number) -> None:
    child = Child(tmp_path, returns_after_a_signal)
    child.send(number)
    code, said = child.end()
    assert (code, said) == (
        0,
        f"{number.name}: nothing to do outside of meta-training; running on\n",
    )


def test_under_slurm_a_signal_of_the_batch_system_requeues_the_job(tmp_path, monkeypatch) -> None:
    """As in meta-training: it asks once, and waits to be killed."""
    command = tmp_path / "bin" / "scontrol"
    command.parent.mkdir()
    command.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    command.chmod(0o755)
    monkeypatch.setenv("PATH", str(command.parent), prepend=os.pathsep)
    monkeypatch.setenv("SLURM_JOB_ID", "41")

    child = Child(tmp_path, returns_after_a_signal)
    child.send(signal.SIGUSR1)
    time.sleep(1.0)  # it would have ended by itself
    assert os.waitpid(child.pid, os.WNOHANG) == (0, 0)
    os.kill(child.pid, signal.SIGKILL)
    assert child.end()[0] == -signal.SIGKILL
    assert (tmp_path / "asked").read_text() == "requeue 41\n"


def test_sigterm_under_slurm_runs_on(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "41")
    child = Child(tmp_path, returns_after_a_signal)
    child.send(signal.SIGTERM)
    assert child.end() == (0, "SIGTERM: running on until Slurm ends the job\n")


def test_what_nohup_ignores_stays_ignored(tmp_path) -> None:
    child = Child(tmp_path, returns_after_a_signal, ignored=signal.SIGHUP)
    child.send(signal.SIGHUP)
    assert child.end() == (0, "")


def test_a_handler_that_was_there_stays(monkeypatch) -> None:
    before = signal.signal(signal.SIGUSR2, print)
    try:
        with interrupts.heard():
            assert signal.getsignal(signal.SIGUSR2) is print
            assert signal.getsignal(signal.SIGUSR1) is interrupts.hear
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert signal.getsignal(signal.SIGUSR1) is not interrupts.hear


def test_a_terminal_that_closes_leaves_the_way_on_in_the_log(tmp_path) -> None:
    pid, terminal = pty.fork()
    if not pid:
        code = 99
        try:
            for number, handler in DEFAULTS.items():
                signal.signal(number, handler)
            sys.stdout = open(1, "w", closefd=False)  # noqa: SIM115
            sys.stderr = open(2, "w", closefd=False)  # noqa: SIM115
            logging.getLogger().addHandler(logging.FileHandler(tmp_path / "log"))
            with interrupts.heard(), interrupts.way_on(lambda: WAY_ON):
                cli.answer(wait, (tmp_path / "ready").touch)
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else 98
        finally:
            os._exit(code)

    while not (tmp_path / "ready").exists():
        time.sleep(0.01)
    os.close(terminal)  # the system sends SIGHUP, and nothing can be printed any more
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
    assert f"stopped by SIGHUP. {WAY_ON}" in (tmp_path / "log").read_text()
