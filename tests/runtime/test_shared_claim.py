"""All ranks of a run write into the folder that the first one has claimed."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learned_opt.core.errors import UsageError
from learned_opt.runtime import shared_claim

SRUN = {"SLURM_JOB_ID": "7", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_TASKS": "2"}
TORCHRUN = {"TORCHELASTIC_RUN_ID": "none", "MASTER_PORT": "29500", "WORLD_SIZE": "2"}


def rank(number: int, folder: Path) -> subprocess.Popen:
    """A job without torch, as srun starts it; its run folder has the time in its name."""
    environment = os.environ | SRUN | {"SLURM_PROCID": str(number), "PYTHONPATH": os.getcwd()}
    # the first one must not end, and take its note back, before the other has asked
    command = [sys.executable, "-m", "tests.helpers.tiny_job", "action=meet"]
    return subprocess.Popen(command, cwd=folder, env=environment, stderr=subprocess.PIPE)


def test_the_second_rank_joins_the_folder_that_the_first_has_claimed(tmp_path) -> None:
    taken = tmp_path / "runs" / time.strftime("%Y")  # of another run, begun in the same second
    taken.mkdir(parents=True)
    ranks = [rank(1, tmp_path), rank(0, tmp_path)]
    try:
        for process in ranks:
            _, errors = process.communicate(timeout=60)
            assert process.returncode == 0, errors
    finally:
        for process in ranks:
            process.kill()

    assert list(taken.iterdir()) == []
    folders = {path.name for path in taken.parent.iterdir() if path.is_dir() and path != taken}
    assert folders - {"latest"} == {f"{taken.name}_2"}
    assert not list(taken.parent.glob(".claim-*"))  # the first rank has taken its note back


@pytest.mark.parametrize("variables", [SRUN, TORCHRUN])
def test_what_is_told_is_heard_in_the_same_start_alone(tmp_path, monkeypatch, variables) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    shared_claim.tell(tmp_path, tmp_path / "1_2")
    assert shared_claim.ask(tmp_path) == tmp_path / "1_2"

    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "1")
    with pytest.raises(
        UsageError, match=r"the first rank has claimed no folder in .* 0\.1 seconds"
    ):
        shared_claim.ask(tmp_path, patience=0.1)


def test_a_note_of_an_earlier_run_is_not_believed(tmp_path, monkeypatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    shared_claim.tell(tmp_path, tmp_path / "1")
    (note,) = tmp_path.glob(".claim-*")
    os.utime(note, (0, time.time() - 1000))
    with pytest.raises(UsageError, match="has claimed no folder"):
        shared_claim.ask(tmp_path, patience=0.1)


def test_a_process_alone_leaves_no_note(tmp_path) -> None:
    shared_claim.tell(tmp_path, tmp_path / "1")
    assert list(tmp_path.iterdir()) == []
