"""A run folder belongs to one run, and ``job.json`` is told of every end."""

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from learned_opt.commands import cli
from learned_opt.runtime import current_job, job_file, new_folder, rank_processes

ROOT = Path(cli.__file__).parents[2]
COMMAND = [sys.executable, "-m", "tests.helpers.tiny_job"]


def begin(folder: Path, *words: str) -> subprocess.Popen:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [*COMMAND, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def tiny(folder: Path, *words: str) -> tuple[int, str]:
    """Exit code and what was said on stderr."""
    process = begin(folder, *words)
    _, error = process.communicate(timeout=60)
    return process.returncode, error


def waiting(folder: Path, *words: str) -> subprocess.Popen:
    process = begin(folder, "action=wait", *words)
    assert process.stdout is not None
    assert process.stdout.readline() == "waits\n"
    return process


def codes(processes: list[subprocess.Popen]) -> list[int]:
    for process in processes:
        process.communicate(timeout=60)
    return [process.returncode for process in processes]


def test_a_run_that_ends_is_finished_with_its_value(tmp_path) -> None:
    assert tiny(tmp_path, "seed=3", "hydra.run.dir=run") == (0, "")
    record = job_file.read(tmp_path / "run")
    assert (record["state"], record["value"]) == ("finished", 3.0)
    assert record["overrides"] == ["seed=3"]


@pytest.mark.parametrize(
    ("action", "code", "state", "error"),
    [
        ("fail", 1, "failed", "it cannot go on."),
        ("full", 1, "failed", "OSError: [Errno 28] No space left on device"),
        ("exit", 143, "stopped", "stopped by SIGTERM"),
    ],
)
def test_every_end_is_recorded(tmp_path, action, code, state, error) -> None:
    assert tiny(tmp_path, f"action={action}", "hydra.run.dir=run")[0] == code
    record = job_file.read(tmp_path / "run")
    assert (record["state"], record["error"]) == (state, error)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_are_recorded_and_answered_with_a_way_on(tmp_path, number) -> None:
    before = signal.signal(number, signal.SIG_DFL)  # under nohup a child would ignore SIGHUP
    try:
        process = waiting(tmp_path, "hydra.run.dir=run")
    finally:
        signal.signal(number, before)
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    assert process.returncode == 128 + number
    command = "python -m learned_opt tiny action=wait hydra.run.dir=run"
    assert error.endswith(f"What was written is whole. To go on:\n  {command}\n")
    record = job_file.read(tmp_path / "run")
    assert record["state"] == "stopped"
    assert record["error"] == f"stopped by {signal.Signals(number).name}"


def test_a_kill_leaves_running_and_nobody_believes_it(tmp_path) -> None:
    tiny(tmp_path, "action=die", "hydra.run.dir=run")
    record = job_file.read(tmp_path / "run")
    assert record["state"] == "running"
    assert not job_file.is_alive(record, {})


def test_a_number_that_another_process_got_is_not_the_job() -> None:
    """As after a reboot, or in containers, where every first process is number 1."""
    record = job_file.started("running", [])
    assert job_file.is_alive(record, {})
    assert not job_file.is_alive({**record, "process": "another-boot 1"}, {})
    assert not job_file.is_alive({**record, "pid": 1}, {})


def test_a_full_disk_does_not_hide_why_the_job_ended(tmp_path, monkeypatch, capsys) -> None:
    def fails() -> None:
        monkeypatch.setattr(job_file, "write_json", full)
        raise ValueError("the reason")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with pytest.raises(ValueError, match="the reason"):
        current_job.recorded(tmp_path, [], fails)
    assert "No space left on device" in capsys.readouterr().err


def test_a_forked_process_does_not_speak_for_the_job(tmp_path) -> None:
    def forks() -> None:
        if pid := os.fork():
            os.waitpid(pid, 0)
            return
        current_job.end({"state": "failed", "error": "the child"})
        os._exit(0)

    current_job.recorded(tmp_path, [], forks)
    assert job_file.read(tmp_path)["state"] == "finished"


@pytest.mark.parametrize(
    "words", [["hydra.run.dir=a/b/c"], [], ["hydra.output_subdir=.hydra/build"]]
)
def test_input_that_is_refused_leaves_no_folder(tmp_path, words) -> None:
    code, error = tiny(tmp_path, "action=refuse", *words)
    assert (code, error) == (2, "learned_opt: sigma must be positive, got -1.\n")
    assert list(tmp_path.iterdir()) == []


def test_refused_input_leaves_a_folder_that_was_there(tmp_path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("1")
    assert tiny(tmp_path, "action=refuse", "hydra.run.dir=run")[0] == 2
    assert (tmp_path / "run" / "mine.txt").read_text() == "1"


def test_a_folder_with_results_is_not_taken_back(tmp_path) -> None:
    folder = tmp_path / "run"
    new_folder.make(folder)
    (folder / "metrics.csv").write_text("step\n")
    new_folder.take_back(folder, "learned_opt.log")
    assert (folder / "metrics.csv").is_file()


def test_two_processes_in_one_folder_are_refused(tmp_path) -> None:
    first = waiting(tmp_path, "hydra.run.dir=run")
    before = job_file.read(tmp_path / "run")
    try:
        code, error = tiny(tmp_path, "action=wait", "hydra.run.dir=run")
    finally:
        first.kill()
        first.communicate()
    assert code == 2
    assert error.startswith(f"learned_opt: run is in use by process {first.pid} on ")
    assert "choose another hydra.run.dir." in error
    assert job_file.read(tmp_path / "run") == before
    # the kill has dropped the lock
    assert tiny(tmp_path, "action=die", "hydra.run.dir=run")[0] == 2  # it is a run of action=wait
    second = waiting(tmp_path, "hydra.run.dir=run")
    second.kill()
    second.communicate()


def test_two_runs_of_one_second_get_two_folders(tmp_path) -> None:
    processes = [begin(tmp_path, f"seed={seed}") for seed in range(3)]
    assert codes(processes) == [0, 0, 0]
    folders = sorted((tmp_path / "runs").glob("2*"))  # without the link to the newest
    assert [folder.name[4:] for folder in folders] == ["", "_2", "_3"]
    assert {job_file.read(folder)["value"] for folder in folders} == {0.0, 1.0, 2.0}


def test_two_sweeps_of_one_second_get_two_folders(tmp_path) -> None:
    processes = [begin(tmp_path, "-m", f"seed={seed},5") for seed in range(2)]
    assert codes(processes) == [0, 0]
    folders = sorted((tmp_path / "sweeps").glob("2*"))
    assert [folder.name[4:] for folder in folders] == ["", "_2"]
    for folder in folders:
        assert job_file.read(folder / "0")["state"] == "finished"
        assert job_file.read(folder / "1")["value"] == 5.0
        assert (folder / "multirun.yaml").is_file()


def test_another_config_in_a_folder_is_refused_before_anything_is_written(tmp_path) -> None:
    assert tiny(tmp_path, "hydra.run.dir=run", "seed=1")[0] == 0
    run = tmp_path / "run"
    paths = [path for path in run.rglob("*") if path.is_file() and path.name != ".lock"]
    files = {path: path.read_bytes() for path in paths}
    code, error = tiny(tmp_path, "hydra.run.dir=run", "seed=2", "trainer.max_steps=3")
    assert code == 2
    assert "seed (1 there, 2 here), trainer.max_steps (4 there, 3 here);" in error
    assert {path: path.read_bytes() for path in files} == files
    assert tiny(tmp_path, "hydra.run.dir=run", "seed=1", "trainer.max_steps=6")[0] == 0


def test_an_unwritable_folder_is_a_sentence(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    code, error = tiny(tmp_path, "hydra.run.dir=file/run")
    assert code == 2
    assert error.startswith("learned_opt: the folder of the run cannot be made: ")
    assert "Traceback" not in error


def test_the_code_is_recorded_at_every_start(tmp_path) -> None:
    tiny(tmp_path, "action=die", "hydra.run.dir=run")
    starts = json.loads((tmp_path / "run" / "starts.json").read_text())
    assert set(starts[0]) == {"time", "git", "changes", "python", "torch", "lightning"}
    if starts[0]["changes"]:
        assert (tmp_path / "run" / f"code-{starts[0]['changes']}.diff").is_file()


def test_a_rank_that_dies_is_in_the_record(tmp_path, monkeypatch) -> None:
    """The leader waits for a sum that never comes, and is ended from a thread."""
    exits = []
    monkeypatch.setattr(rank_processes, "GRACE", 0.0)
    monkeypatch.setattr(rank_processes, "_failed", lambda _: "rank 1 has ended with exit code -9")
    monkeypatch.setattr(os, "_exit", exits.append)

    current_job.recorded(tmp_path, [], rank_processes._watch, [], threading.Event())
    record = job_file.read(tmp_path)
    assert exits == [1]
    assert (record["state"], record["error"]) == ("failed", "rank 1 has ended with exit code -9")
