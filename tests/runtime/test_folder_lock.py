"""The lock of a folder, where the file system is of another mind."""

import errno
import fcntl
import json
import os

import pytest

from learned_opt.core.errors import UsageError
from learned_opt.runtime import folder_lock


def test_a_process_keeps_what_it_holds_and_gives_it_back(tmp_path) -> None:
    folder_lock.acquire(tmp_path)
    folder_lock.acquire(tmp_path)
    with (tmp_path / ".lock").open() as file:
        with pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        folder_lock.release(tmp_path)
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    assert json.loads((tmp_path / ".lock").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", '{"pid": 1}', "[]"])
def test_a_holder_that_has_not_said_who_it_is(tmp_path, content) -> None:
    (tmp_path / ".lock").write_text(content)
    with (tmp_path / ".lock").open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        with pytest.raises(UsageError, match="is in use by another process; wait"):
            folder_lock.acquire(tmp_path)


def test_a_file_system_without_locks_is_said(tmp_path, monkeypatch, capsys) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    folder_lock.acquire(tmp_path)
    assert "has no locks (No locks available), so that two runs" in capsys.readouterr().err


def test_a_program_that_is_started_does_not_keep_the_lock(tmp_path) -> None:
    folder_lock.acquire(tmp_path)
    assert not os.get_inheritable(folder_lock._held[tmp_path.resolve()])
    folder_lock.release(tmp_path)
