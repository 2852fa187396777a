"""How a run ends whose comparison cannot be written."""

import errno
from pathlib import Path

import pytest

from learned_opt.commands import train
from learned_opt.core.errors import RunError
from learned_opt.runtime.run_folder import RunFolder


def test_a_full_disk_in_the_comparison_says_that_theta_is_kept(tmp_path, monkeypatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "report.html")

    monkeypatch.setattr(train, "compare", full)
    with pytest.raises(RunError) as caught:
        train._compare_or_say_how({}, {}, RunFolder(tmp_path), None)
    sentence = str(caught.value)
    assert f"theta is trained and kept in {tmp_path}" in sentence
    assert "No space left on device: 'report.html'. Mend that" in sentence
    assert f"hydra.run.dir={tmp_path}" in sentence


def test_an_output_that_nobody_reads_is_none_of_the_disk(monkeypatch) -> None:
    def closed(*_: object) -> None:
        raise BrokenPipeError

    monkeypatch.setattr(train, "compare", closed)
    with pytest.raises(BrokenPipeError):
        train._compare_or_say_how({}, {}, RunFolder(Path("x")), None)
