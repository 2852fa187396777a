"""The jobs of a sweep: which there should be, what has become of each, and how to run again what is not whole."""

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from learned_opt import cluster, jobs
from learned_opt.cli import UsageError

LEFT_ALONE = ("finished", "running", "queued", "unknown")  # states in which nothing is run again


class Job(NamedTuple):
    """A job of a sweep."""

    name: str  # of its folder
    folder: Path
    overrides: list[str]
    state: str  # finished, running, queued, failed, killed, missing or unknown
    why: str  # it is not whole


def find_jobs(folder: Path) -> list[Job]:
    """All jobs of a sweep, those included that have not begun.

    Raises:
        UsageError: the folder is none of a sweep.
    """
    if not folder.is_dir():
        raise UsageError(f"folder must be that of a sweep, runs/sweeps/TIME, but there is none at {folder}.")
    records = {path.parent: jobs.read(path.parent) for path in sorted(folder.glob(f"*/{jobs.FILE}"))}
    planned = _planned(folder)
    if not records and not planned:
        raise UsageError(f"folder must be that of a sweep, but {folder} holds no {jobs.PLAN} and no */{jobs.FILE}.")
    queue, complaint = _queue(records)
    found = [_job(path, record, queue, complaint) for path, record in records.items()]
    known = [sorted(job.overrides) for job in found]
    absent = [words for words in planned if sorted(words) not in known]
    return sorted(found, key=_order) + [Job("-", folder, words, "missing", "it has never begun") for words in absent]


def _job(path: Path, record: jobs.Record, queue: Mapping[str, str], complaint: str) -> Job:
    state, why = record["state"], record.get("error", "")
    if complaint and record["job"] and state in ("running", "submitted"):
        return Job(path.name, path, record["overrides"], "unknown", complaint)
    if state == "submitted" or queue.get(record["job"]) == "PENDING":
        state = "queued"
    if state in ("running", "queued") and not jobs.is_alive(record, queue):
        state, why = "killed", _last_words(path.parent, record["job"], queue)
    return Job(path.name, path, record["overrides"], state, why)


def _queue(records: Mapping[Path, jobs.Record]) -> tuple[dict[str, str], str]:
    """Slurm's view, asked for where some job has not said that it ended; and why there is none."""
    if not any(record["job"] and record["state"] in ("running", "submitted") for record in records.values()):
        return {}, ""
    try:
        return cluster.queue(), ""
    except OSError as error:
        return {}, str(error)


def _last_words(folder: Path, job: str | None, queue: Mapping[str, str]) -> str:
    """Why a job is no more, as far as anyone knows."""
    state = queue.get(job or "", "no longer known to Slurm" if job else "its process is gone")
    errors = sorted(folder.glob(f".submitit/{job}/*_log.err")) if job else []
    lines = [line for path in errors for line in path.read_text(errors="replace").splitlines() if line.strip()]
    return f"{state}; its last line: {lines[-1].strip()}" if lines else state


def _planned(folder: Path) -> list[list[str]]:
    """Overrides of each job of Hydra's own sweeper; empty for one that decides as it goes."""
    if not (folder / jobs.PLAN).is_file():
        return []
    hydra = jobs.plan(folder)
    if not hydra.sweeper._target_.endswith("BasicSweeper") or "glob(" in str(hydra.overrides.task):
        return []
    words = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*words, *hydra.overrides.task])
    return BasicSweeper.split_arguments(overrides, None)[0]


def command(folder: Path, found: Sequence[Job]) -> str:
    """The command that runs again what is not whole, and nothing else; empty where all is."""
    if all(job.state in LEFT_ALONE for job in found):
        return ""
    if not (folder / jobs.PLAN).is_file():  # of a sweeper that decides as it goes
        words = [[*job.overrides, f"hydra.run.dir={job.folder}"] for job in found if job.state not in LEFT_ALONE]
        return "\n  ".join(f"python -m learned_opt {shlex.join(own)}" for own in words)
    hydra = jobs.plan(folder)
    own = [word for word in hydra.overrides.hydra if not word.startswith(("hydra.mode=", "hydra.sweep.dir="))]
    return f"python -m {jobs.module(hydra)} -m {shlex.join([*hydra.overrides.task, *own, f'hydra.sweep.dir={folder}'])}"


def _order(job: Job) -> tuple[Any, ...]:
    return (0, int(job.name)) if job.name.isdigit() else (1, job.name)
