"""A study of Optuna that is killed goes on by the same command, and each trial counts once."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from learned_opt.commands import cli
from learned_opt.runtime import job_file
from tests.commands.test_cli import TINY

pytest.importorskip("optuna")
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:sqlalchemy")
ROOT = Path(cli.__file__).parents[2]
STUDY = ["-m", "hydra/sweeper=outer", "hydra.sweep.dir=s", "hydra.sweeper.n_jobs=4"]


def start(folder: Path, module: str, *words: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def tiny(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of a study of jobs that need no time."""
    searched = "seed=interval(0,1000)"
    process = start(folder, "tests.helpers.tiny_job", *STUDY, searched, *words)
    printed = process.communicate(timeout=300)[0]
    return process.returncode, printed


def trials(folder: Path) -> list:
    import optuna

    storage = f"sqlite:///{folder}/s/study.db"
    return optuna.load_study(study_name="outer", storage=storage).trials


@pytest.mark.slow
def test_a_killed_study_goes_on_by_the_same_command(tmp_path) -> None:
    words = ["action=die_once", "hydra.sweeper.n_trials=6"]
    code, printed = tiny(tmp_path, *words)
    assert code == -signal.SIGKILL, printed
    assert [trial.state.name for trial in trials(tmp_path)] == 4 * ["RUNNING"]
    before = [trial.params for trial in trials(tmp_path)]
    began = job_file.read(tmp_path / "s" / "0")["started"]

    code, printed = tiny(tmp_path, *words)
    assert code == 0, printed
    assert "trials that were running are run again: 0, 1, 2, 3\n" in printed
    assert printed.count(" was finished before\n") == 2
    assert "6 jobs: 6 finished\n" in printed
    assert job_file.read(tmp_path / "s" / "0")["started"] == began

    ended = trials(tmp_path)
    assert [trial.state.name for trial in ended] == 6 * ["COMPLETE"]
    assert [trial.params for trial in ended[:4]] == before
    # the value of a job is its seed: trial N is the job of folder N
    assert [trial.value for trial in ended] == [trial.params["seed"] for trial in ended]
    assert len({trial.value for trial in ended}) == 6


@pytest.mark.slow
def test_a_study_grows_and_is_no_others(tmp_path) -> None:
    for num_trials, num_new in ((2, 2), (2, 0), (3, 1)):
        code, printed = tiny(tmp_path, f"hydra.sweeper.n_trials={num_trials}")
        assert code == 0, printed
        assert printed.count(" starts in ") == num_new
        assert len(trials(tmp_path)) == num_trials

    code, printed = tiny(tmp_path, "hydra.sweeper.n_trials=2", "trainer.max_steps=5")
    assert code == 2
    assert "s holds another sweep" in printed

    storage = f"hydra.sweeper.storage=sqlite:///{tmp_path}/s/study.db"
    code, printed = tiny(tmp_path, "hydra.sweep.dir=t", storage, "trainer.max_steps=5")
    assert code == 2
    assert "is that of another sweep (seed=interval(0,1000)); choose another " in printed


@pytest.mark.slow
def test_a_trial_that_fails_by_itself_is_told_and_not_run_again(tmp_path) -> None:
    words = ["action=fail", "hydra.sweeper.n_trials=2", "hydra.sweeper.max_failure_rate=1"]
    code, printed = tiny(tmp_path, *words)
    assert code == 1
    assert "learned_opt: no trial of the study has a value.\n" in printed
    assert [trial.state.name for trial in trials(tmp_path)] == 2 * ["FAIL"]
    folder = tmp_path / "s" / "1"
    seed = next(word for word in job_file.read(folder)["overrides"] if word.startswith("seed="))
    assert f"  python -m learned_opt tiny {seed} action=fail hydra.run.dir=s/1\n" in printed

    code, printed = tiny(tmp_path, *words)
    assert code == 1
    assert " starts in " not in printed
    assert len(trials(tmp_path)) == 2


@pytest.mark.slow
def test_a_trial_that_was_killed_goes_on_from_its_checkpoint(tmp_path) -> None:
    words = [*STUDY, "+task=mlp", *TINY, "meta_optimizer=sgdm"]
    words += ["hydra.sweeper.n_trials=3", "trainer.max_steps=300", "benchmark.archive=null"]
    words += ["callbacks.checkpoints.every=20", "callbacks.validation.every=100"]
    run = tmp_path / "s" / "1"
    killed = start(tmp_path, "learned_opt", *words)
    try:
        deadline = time.monotonic() + 1800
        while not list(run.glob("checkpoints/step_*.ckpt")):
            assert time.monotonic() < deadline
            assert killed.poll() is None
            time.sleep(0.2)
    finally:
        killed.kill()
        killed.communicate()
    assert job_file.read(run)["state"] == "running"

    again = start(tmp_path, "learned_opt", *words)
    printed = again.communicate(timeout=1800)[0]
    assert again.returncode == 0, printed
    assert "job 0" in printed.split(" was finished before")[0]
    assert "going on from s/1/checkpoints/step_" in printed
    assert "3 jobs: 3 finished\n" in printed

    ended = trials(tmp_path)
    assert [trial.state.name for trial in ended] == 3 * ["COMPLETE"]
    for trial in ended:
        folder = tmp_path / "s" / str(trial.number)
        assert trial.value == job_file.read(folder)["value"]
    assert len(json.loads((run / "starts.json").read_text())) == 2
    steps = [line.partition(",")[0] for line in (run / "metrics.csv").read_text().splitlines()[1:]]
    assert len(set(steps)) == 300 == int(steps[-1]) + 1
