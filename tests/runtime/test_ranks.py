"""The processes of a run: who starts them, what they check, how they end."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from learned_opt.core.errors import RunError, UsageError
from learned_opt.runtime.rank_processes import followers
from learned_opt.runtime.ranks import World, world
from learned_opt.training.callbacks import agreement
from learned_opt.training.callbacks.agreement import RanksDisagree, compare, digest
from learned_opt.training.checkpoint_files import CheckpointError
from learned_opt.training.meta_training import Training
from tests.helpers.rank_actions import tell_and_fail, tell_and_wait
from tests.helpers.threaded_ranks import on_ranks

VARIABLES = (
    "LOCAL_RANK",
    "RANK",
    "SLURM_STEP_NUM_TASKS",
    "SLURM_PROCID",
    "SLURM_LOCALID",
    "MASTER_PORT",
)


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch) -> None:
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("trainer", "environment", "expected"),
    [
        ({}, {}, World()),
        ({"devices": "auto"}, {}, World()),
        ({"devices": 3}, {}, World(3, 3, complete=False)),
        ({"devices": 3}, {"LOCAL_RANK": "2"}, World(3, 3, 2, 2)),
        ({"devices": 2, "num_nodes": 2}, {"LOCAL_RANK": "1", "RANK": "3"}, World(4, 2, 3, 1)),
        (
            {"devices": 2, "num_nodes": 2},
            {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "2", "SLURM_LOCALID": "0"},
            World(4, 2, 2, 0),
        ),
        (
            {"devices": 2},
            {"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"},
            World(2, 2, complete=False),
        ),
    ],
)
def test_who_am_i(monkeypatch, trainer, environment, expected) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert world(**{"devices": 1, "device": "cpu", **trainer}) == expected
    assert expected.is_leader == (expected.rank == 0)


def test_impossible_worlds_are_refused() -> None:
    with pytest.raises(UsageError, match=r"trainer.devices must be auto or at least 1, got 0\."):
        world(0, device="cpu")
    with pytest.raises(UsageError, match=r"num_nodes is 2, but this process was started alone"):
        world(1, num_nodes=2, device="cpu")


def with_another(folder: Path, follow, error: BaseException) -> None:
    """Wait until the other rank has told, then raise."""
    with followers(2, 1, follow, str(folder)):
        assert os.environ["LOCAL_RANK"] == "0"
        while not (folder / "rank").exists():
            time.sleep(0.05)
        raise error


def test_a_rank_that_fails_is_named(tmp_path) -> None:
    gone = RuntimeError("Connection closed by peer")  # what gloo says then
    with pytest.raises(RunError, match="rank 1 has ended with exit code 3"):
        with_another(tmp_path, tell_and_fail, gone)


def test_other_ranks_end_with_this_one(tmp_path) -> None:
    with pytest.raises(KeyboardInterrupt):
        with_another(tmp_path, tell_and_wait, KeyboardInterrupt())
    pid, *rank_and_size = map(int, (tmp_path / "rank").read_text().split())
    assert rank_and_size == [1, 2]
    assert not Path(f"/proc/{pid}").exists()
    assert not {"LOCAL_RANK", "WORLD_SIZE"} & set(os.environ)


def test_a_rank_that_waits_for_ever_is_ended_with_a_line_on_stderr(tmp_path) -> None:
    script = (
        "import time\n"
        "from learned_opt.runtime import rank_processes\n"
        "from tests.helpers.rank_actions import tell_and_fail\n"
        "if __name__ == '__main__':\n"
        "    rank_processes.GRACE = 0.1\n"
        f"    with rank_processes.followers(2, 1, tell_and_fail, {str(tmp_path)!r}):\n"
        "        time.sleep(100)\n"
    )
    (tmp_path / "waits.py").write_text(script)
    root = str(Path(__file__).parents[2])
    result = subprocess.run(
        [sys.executable, str(tmp_path / "waits.py")],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    line = "learned_opt: rank 1 has ended with exit code 3\n"
    assert (result.returncode, result.stdout, result.stderr) == (1, "", line)


def test_one_flipped_bit_of_theta_stops_all_ranks(monkeypatch) -> None:
    modules = [torch.nn.Linear(3, 2), torch.nn.Linear(3, 2)]
    modules[1].load_state_dict(modules[0].state_dict())

    def work(share):
        module = SimpleNamespace(
            named_parameters=modules[share.rank].named_parameters, device="cpu"
        )
        monkeypatch.setattr(agreement, "Share", lambda *_: share)
        compare(SimpleNamespace(global_rank=share.rank, world_size=2, global_step=7), module)

    on_ranks(2, work)
    assert digest(modules[0], 7) != digest(modules[0], 8)
    bits = modules[1].weight.data.view(torch.int32)
    bits[1, 1] ^= 1
    with pytest.raises(
        RanksDisagree,
        match=r"differ in theta at outer step 7: rank 0 has \w{16}, rank 1 has \w{16}\.",
    ):
        on_ranks(2, work)


@pytest.mark.parametrize(
    ("raised", "line"),
    [
        (RanksDisagree("the ranks differ in theta."), "the ranks differ in theta."),
        (
            OSError(28, "No space left on device"),
            "cannot go on at outer step 3: [Errno 28] No space left on device.",
        ),
        (
            CheckpointError("cannot write checkpoint step_3.ckpt."),
            "cannot write checkpoint step_3.ckpt.",
        ),
    ],
)
def test_what_ends_a_training_is_an_error_of_the_run(raised, line) -> None:
    """The command line makes one sentence and exit code 1 of it."""

    class Trainer:
        global_step = 3

        def fit(self, *_: object, **__: object) -> None:
            raise raised

    module: Any = None
    with pytest.raises(RunError, match=re.escape(line)):
        Training(module, Trainer(), {}, None).run()
