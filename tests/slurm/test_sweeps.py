"""Sweeps on a real Slurm: jobs that fail, that are killed and come back, that are cancelled."""

import csv
import re
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from safetensors.torch import load_file

from learned_opt.commands import cli
from learned_opt.compose.sweep_plan import find_jobs
from learned_opt.runtime import job_file
from tests.commands.test_cli import TINY
from tests.slurm.cluster import wait_until

pytestmark = pytest.mark.slurm
ROOT = Path(cli.__file__).parents[2]
MINUTES = 60
# long enough for three kills on a quiet machine, where 150 steps take a second
LONG = [
    *TINY,
    "trainer.max_steps=4000",
    "callbacks.checkpoints.every=50",
    "callbacks.validation.every=2000",
]


@pytest.fixture
def start(slurm, tmp_path, monkeypatch):
    """Starts a command as a person would, with Slurm around; nothing is left behind."""
    for name, value in {
        **slurm.environment,
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }.items():
        monkeypatch.setenv(name, value)
    with ExitStack() as stack:

        def begin(*words: str) -> subprocess.Popen:
            process = subprocess.Popen(
                [sys.executable, "-m", "learned_opt", *words],
                cwd=tmp_path,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            stack.enter_context(process)
            stack.callback(process.kill)
            return process

        yield begin


def end(process: subprocess.Popen, minutes: float = 10) -> str:
    return process.communicate(timeout=minutes * MINUTES)[0]


def sweep(*words: str) -> list[str]:
    return [
        "-m",
        "+task=mlp",
        "meta_optimizer=sgdm",
        *words,
        "hydra/launcher=slurm",
        "hydra.launcher.cpus_per_task=1",
    ]


def slurm_id(folder: Path) -> str:
    """Id of a job of a sweep, once it has been submitted."""
    wait_until(lambda: bool(job_file.read(folder)), 2 * MINUTES, f"record in {folder}")
    return job_file.read(folder)["job"]


def progress(folder: Path) -> int:
    """The last outer step that a job has printed."""
    logs = sorted(folder.parent.glob(f".submitit/{slurm_id(folder)}/*_0_log.err"))
    words = logs[0].read_text().split("outer step ") if logs else [""]
    return int(words[-1].split("/")[0]) if len(words) > 1 else 0


def test_jobs_that_fail_leave_the_others_alone(slurm, start, tmp_path) -> None:
    words = sweep(*TINY, "estimator.sigma=0.03,-1.0", "seed=0,1", "hydra.sweep.dir=s")
    process = start(*words)
    said, folder = end(process), tmp_path / "s"
    assert process.returncode == 1, said
    assert "learned_opt: 2 of 4 jobs are not whole." in said
    assert "4 jobs: 2 finished, 2 failed" in said
    for number in range(4):
        assert re.search(rf"job {number} \(.*\) starts in s/{number}\n", said), said
    assert re.search(r"job 0 \(.*\) finished in s/0: validation loss \d", said), said
    assert "job 2 (estimator.sigma=-1.0, seed=0) failed: sigma must be positive, got -1.0." in said
    jobs = find_jobs(folder)
    assert [job.state for job in jobs] == ["finished", "finished", "failed", "failed"]
    states = [slurm.final_state(slurm_id(job.folder)) for job in jobs]
    assert states == ["COMPLETED", "COMPLETED", "FAILED", "FAILED"]  # Slurm knows the truth

    collected = end(start("collect", "s"))
    again = (
        collected.split("to run just those again:\n  python -m learned_opt ")[1]
        .splitlines()[0]
        .split()
    )
    assert sorted(again) == sorted(words)
    began = job_file.read(folder / "0")["started"]
    said = end(start(*again))
    assert "2 jobs are under way, 2 were finished before" in said
    assert job_file.read(folder / "0")["started"] == began


def test_what_slurm_refuses_is_one_sentence(start) -> None:
    process = start(*sweep("hydra.launcher.partition=nowhere"))
    said = end(process)
    assert process.returncode == 2, said
    assert (
        "learned_opt: Slurm refuses the jobs: sbatch: error: invalid partition specified: nowhere"
        in said
    )


def test_killed_jobs_come_back_and_end_as_if_nothing_had_been(slurm, start, tmp_path) -> None:
    """One job is asked to save and requeue, requeued by Slurm and pushed out; one is cancelled."""
    straight = start("+task=mlp", "meta_optimizer=sgdm", *LONG, "hydra.run.dir=straight")
    process = start(*sweep(*LONG, "seed=0,1", "hydra.sweep.dir=s"))
    kept, cancelled = tmp_path / "s" / "0", tmp_path / "s" / "1"
    job = slurm_id(kept)
    wait_until(lambda: progress(cancelled) > 0, 5 * MINUTES, "step of the job to cancel")
    slurm.call("scancel", slurm_id(cancelled))

    wait_until(lambda: progress(kept) >= 120, 5 * MINUTES, "step")
    slurm.call("scancel", "--signal=USR2", job)  # as before the time limit
    slurm.release(job)
    wait_until(lambda: progress(kept) >= 360, 5 * MINUTES, "step after USR2")
    slurm.call("scontrol", "requeue", job)
    slurm.release(job)
    wait_until(lambda: progress(kept) >= 600, 5 * MINUTES, "step after requeue")
    slurm.call(
        "sbatch",
        "--partition=urgent",
        "--nodes=2",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 3",
    )
    slurm.release(job)

    said = end(process)
    assert process.returncode == 1, said
    assert "job 1 (seed=1) killed in s/1: CANCELLED; see " in said
    assert "1 of 2 jobs are not whole" in said
    assert slurm.final_state(slurm_id(cancelled)) == "CANCELLED"
    assert slurm.restarts(job) == 3
    jobs = find_jobs(tmp_path / "s")
    assert [(job.name, job.state) for job in jobs] == [("0", "finished"), ("1", "killed")]
    assert jobs[1].why.startswith("CANCELLED; its last line: ")

    assert end(straight)
    straight_theta, theta = (
        load_file(path / "theta.safetensors") for path in (tmp_path / "straight", kept)
    )
    assert all(theta[name].equal(value) for name, value in straight_theta.items())
    assert measured(kept) == measured(tmp_path / "straight")


def measured(folder: Path) -> list[tuple[str, str]]:
    """Step and meta-loss of every outer step."""
    with (folder / "metrics.csv").open(newline="") as file:
        return [
            (row["step"], row["meta_loss/train"])
            for row in csv.DictReader(file)
            if row["meta_loss/train"]
        ]


def test_ranks_of_two_nodes_learn_what_ranks_of_one_learn(start, tmp_path) -> None:
    run = [
        "+task=mlp",
        "meta_optimizer=deep_set",
        *TINY,
        "estimator.num_tasks=4",
        "device=cpu",
        "trainer=ddp_cpu",
    ]
    here = start(*run, "hydra.run.dir=here")
    nodes = [
        "hydra/launcher=slurm_cpu",
        "hydra.launcher.mem_gb=1",
        "trainer.devices=1",
        "trainer.num_nodes=2",
    ]
    there = start("-m", *run, *nodes, "hydra.sweep.dir=s")
    for process in (here, there):
        said = end(process)
        assert process.returncode == 0, said
    theta, other = (load_file(tmp_path / name / "theta.safetensors") for name in ("here", "s/0"))
    assert all(other[name].equal(value) for name, value in theta.items())
    records = [path.parent.name for path in (tmp_path / "s").glob("*/job.json")]
    assert records == ["0"]
