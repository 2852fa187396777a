"""The jobs of a sweep: which there should be, what has become of each, and how to run again what is not whole."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from learned_opt.core.errors import UsageError
from learned_opt.runtime import job_file, job_record, slurm

LEFT_ALONE = ("finished", "running", "queued", "unknown")  # states in which nothing is run again


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
        UsageError: the folder is none of a sweep.
    """
    if not folder.is_dir():
        raise UsageError(
            f"folder must be that of a sweep, runs/sweeps/TIME, but there is none at {folder}."
        )
    records = {
        path.parent: job_file.read(path.parent)
        for path in sorted(folder.glob(f"*/{job_file.FILE}"))
    }
    if not records and not planned:
        raise UsageError(
            f"folder must be that of a sweep, but {folder} holds no {job_record.PLAN} and no */{job_file.FILE}."
        )
    queue, complaint = _queue(records)
    found = [_job(path, record, queue, complaint) for path, record in records.items()]
    known = [sorted(job.overrides) for job in found]
    absent = [words for words in planned if sorted(words) not in known]
    return sorted(found, key=_order) + [
        Job("-", folder, words, "missing", "it has never begun") for words in absent
    ]


def _job(path: Path, record: job_file.Record, queue: Mapping[str, str], complaint: str) -> Job:
    state, why = record["state"], record.get("error", "")
    if complaint and record["job"] and state in ("running", "submitted"):
        return Job(path.name, path, record["overrides"], "unknown", complaint)
    if state == "submitted" or queue.get(record["job"]) == "PENDING":
        state = "queued"
    if state in ("running", "queued") and not job_file.is_alive(record, queue):
        state, why = "killed", _last_words(path.parent, record["job"], queue)
    return Job(path.name, path, record["overrides"], state, why)


def _queue(records: Mapping[Path, job_file.Record]) -> tuple[dict[str, str], str]:
    """Slurm's view, asked for where some job has not said that it ended; and why there is none."""
    if not any(
        record["job"] and record["state"] in ("running", "submitted") for record in records.values()
    ):
        return {}, ""
    try:
        return slurm.queue(), ""
    except OSError as error:
        return {}, str(error)


def _last_words(folder: Path, job: str | None, queue: Mapping[str, str]) -> str:
    """Why a job is no more, as far as anyone knows."""
    state = queue.get(job or "", "no longer known to Slurm" if job else "its process is gone")
    errors = sorted(folder.glob(f".submitit/{job}/*_log.err")) if job else []
    lines = [
        line
        for path in errors
        for line in path.read_text(errors="replace").splitlines()
        if line.strip()
    ]
    return f"{state}; its last line: {lines[-1].strip()}" if lines else state


def _order(job: Job) -> tuple[Any, ...]:
    return (0, int(job.name)) if job.name.isdigit() else (1, job.name)
