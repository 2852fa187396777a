"""A job that a sweeper asks a launcher for, before and after it has run."""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from learned_opt.core.errors import RunError
from learned_opt.runtime import job_file, job_lines, job_record, rerun_command, sweep_jobs
from learned_opt.runtime.run_folder import SweepFolder

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SweepRun:
    """A job of a sweep.

    Args:
        number: of the job.
        overrides: as the sweeper has them.
        task_overrides: as Hydra writes them into the run folder.
        folder: of the run.
        setting: overrides that set it apart from the others, key -> value.
    """

    number: int
    overrides: list[str]
    task_overrides: list[str]
    folder: Path
    setting: dict[str, str]


def compose_runs(
    context: HydraContext,
    config: DictConfig,
    job_overrides: Sequence[Sequence[str]],
    first_number: int,
) -> list[SweepRun]:
    """The jobs that a sweeper asks for.

    Args:
        context: what Hydra hands to launchers and sweepers.
        config: of the sweep.
        job_overrides: words of each job.
        first_number: of the first job; the others count on from it.
    """
    settings = job_file.varying(job_overrides)
    if len(job_overrides) == 1:
        # no other job to be told apart from: the words that the sweeper has made
        typed = {word.casefold() for word in job_record.as_typed(config.hydra.overrides.task)}
        made = [word for word in job_overrides[0] if word.casefold() not in typed]
        settings = [job_file.values(made)]
    runs = []
    for index, words in enumerate(job_overrides):
        number = first_number + index
        composed = context.config_loader.load_sweep_config(config, list(words))
        with open_dict(composed.hydra.job):
            composed.hydra.job.num = number
            composed.hydra.job.id = "submitted"

        folder = Path(composed.hydra.sweep.dir) / str(composed.hydra.sweep.subdir)
        typed = job_record.as_typed(composed.hydra.overrides.task)
        runs.append(SweepRun(number, list(words), typed, folder, settings[index]))
    return runs


def returned(run: SweepRun, status: JobStatus, value: Any) -> JobReturn:
    """What Hydra's sweepers take for the end of a job.

    Args:
        run: the job.
        status: whether it has come to its end.
        value: its result, or the exception.
    """
    return JobReturn(overrides=run.task_overrides, status=status, _return_value=value)


def returned_before(run: SweepRun, record: job_file.Record) -> JobReturn | None:
    """What a job returned that an earlier start of the sweep has finished; None of another one.

    Args:
        run: the job.
        record: its ``job.json``.
    """
    if not job_file.is_finished(record) or job_file.is_of_another(record, run.task_overrides):
        return None
    log.info(job_lines.line(run.folder.name, run.setting, "was finished before"))
    return returned(run, JobStatus.COMPLETED, record["value"])


def tell_summary(folder: Path, runs: Sequence[SweepRun]) -> int:
    """Print how a sweep stands and how to run again what is not whole.

    Args:
        folder: of the sweep.
        runs: that it should have; jobs that have left a record are known without.

    Returns:
        int: how many jobs are not whole and do not run.
    """
    jobs = sweep_jobs.find_jobs(folder, [run.task_overrides for run in runs])
    lines = job_lines.summary(jobs, rerun_command.command(folder, jobs))
    print("\n".join(lines), flush=True)
    return sum(job.state not in sweep_jobs.LEFT_ALONE for job in jobs)


@contextmanager
def summarised(config: DictConfig, runs: Sequence[SweepRun]) -> Iterator[None]:
    """Tell how a sweep stands when the body has run all its jobs, or is interrupted.

    A study asks for further jobs, and tells its end itself.

    Args:
        config: of the sweep.
        runs: that it should have.

    Raises:
        RunError: some jobs are not whole.
    """
    folder = Path(config.hydra.sweep.dir)
    is_study = "n_trials" in config.hydra.sweeper
    num_left = 0
    try:
        yield
    finally:
        if SweepFolder(folder).plan.is_file() and not is_study:
            num_left = tell_summary(folder, runs)
    if num_left:
        raise RunError(f"{num_left} of {len(runs)} jobs are not whole.")
