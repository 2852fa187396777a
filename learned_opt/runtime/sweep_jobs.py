"""The jobs of a sweep: which there should be, and what has become of each."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from learned_opt.core.errors import UsageError
from learned_opt.runtime import job_file, slurm, sweep_plan_file
from learned_opt.runtime.run_folder import RunFolder, SweepFolder

LEFT_ALONE = ("finished", "running", "queued", "unknown")  # states in which nothing is run again
UNDER_WAY = ("running", "submitted")  # states of job.json in which somebody must ask further


class Job(NamedTuple):
    """A job of a sweep."""

    name: str  # of its folder
    folder: Path
    overrides: list[str]
    state: str  # finished, running, queued, failed, killed, missing or unknown
    why: str  # it is not whole


def find_jobs(folder: Path, planned: Sequence[list[str]]) -> list[Job]:
    """All jobs of a sweep, those included that have not begun.

    Args:
        folder: of the sweep.
        planned: overrides of each job that the sweep should have.

    Raises:
        UsageError: the folder is none of a sweep, or a record in it is damaged.
    """
    if not folder.is_dir():
        raise UsageError(
            f"folder must be that of a sweep, runs/sweeps/TIME, but there is none at {folder}."
        )

    sweep = SweepFolder(folder)
    records = {run.path: job_file.read(run.path) for run in sweep.jobs}
    if not records and not planned and not sweep.plan.is_file():
        raise UsageError(
            f"folder must be that of a sweep, but {folder} holds no {sweep.plan.name} "
            "and no folder of a run."
        )

    queue, complaint = _queue(records)
    jobs = []
    for path, record in records.items():
        jobs.append(_job(path, record, queue, complaint) if record else _unrecorded(path))

    begun = [sorted(job.overrides) for job in jobs]
    for words in planned:
        if sorted(words) not in begun:
            jobs.append(Job("-", folder, words, "missing", "it has never begun"))

    return jobs


def _job(path: Path, record: job_file.Record, queue: Mapping[str, str], complaint: str) -> Job:
    state = record["state"]
    why = record.get("error", "")
    if complaint and record["job"] and state in UNDER_WAY:
        return Job(path.name, path, record["overrides"], "unknown", complaint)

    if state == "submitted" or queue.get(record["job"]) == "PENDING":
        state = "queued"

    if state in ("running", "queued") and not job_file.is_alive(record, queue):
        state = "killed"
        why = _last_words(path.parent, record["job"], queue)

    return Job(path.name, path, record["overrides"], state, why)


def _unrecorded(path: Path) -> Job:
    """A run of a version that kept no ``job.json``, or one that was killed before it had one."""
    try:
        overrides = sweep_plan_file.read(RunFolder(path).hydra_config).overrides
    except UsageError:
        overrides = []
    if RunFolder(path).evaluation.is_file():
        return Job(path.name, path, overrides, "finished", "")
    return Job(path.name, path, overrides, "killed", "it has left no job.json and no evaluation")


def _queue(records: Mapping[Path, job_file.Record]) -> tuple[dict[str, str], str]:
    """Slurm's view, where some job has not told that it ended, and why there is none."""
    is_needed = any(
        record["job"] and record["state"] in UNDER_WAY for record in records.values() if record
    )
    if not is_needed:
        return {}, ""
    try:
        return slurm.queue(), ""
    except OSError as error:
        return {}, str(error)


def _last_words(folder: Path, job: str | None, queue: Mapping[str, str]) -> str:
    """Why a job is no more, as far as anyone knows."""
    if job is None:
        return "its process is gone"

    state = queue.get(job, "no longer known to Slurm")
    last_line = ""
    for path in SweepFolder(folder).logs(job):
        for line in path.read_text(errors="replace").splitlines():
            last_line = line.strip() or last_line
    return f"{state}; its last line: {last_line}" if last_line else state
