"""Waits for the jobs of a launcher in other processes, and tells as each starts and ends."""

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from hydra.core.utils import JobReturn, JobStatus

from learned_opt.core.errors import RunError
from learned_opt.runtime import job_file, job_lines
from learned_opt.runtime.sweep_run import SweepRun, returned

log = logging.getLogger(__name__)
PAUSE = 1.0  # seconds between two looks at the jobs


class SubmittedJobs:
    """Jobs of a sweep in processes of their own.

    Args:
        runs: that are to run.
        submit: makes a job of submitit of a run, or returns the one that waits in a queue already.
        records: number -> ``job.json`` as an earlier start of the sweep has left it.
        num_at_once: how many jobs may be submitted and not ended.
    """

    def __init__(
        self,
        runs: Sequence[SweepRun],
        submit: Callable[[SweepRun], Any],
        records: Mapping[int, job_file.Record],
        num_at_once: int,
    ) -> None:
        self.waiting = list(runs)
        self.submit = submit
        self.records = dict(records)  # of jobs whose start has not been told
        self.num_at_once = num_at_once
        self.jobs: dict[int, Any] = {}  # number -> job, of those that have not ended
        self.runs: dict[int, SweepRun] = {}

    def results(self) -> Mapping[int, JobReturn]:
        """Wait until all have ended; number of the job -> what it returned."""
        results = {}
        while self.waiting or self.jobs:
            self._submit_more()
            for number in list(self.jobs):
                run = self.runs[number]
                has_ended = self.jobs[number].done()
                self._tell_start(run)
                if has_ended:
                    results[number] = _result(run, self.jobs.pop(number))

            if self.jobs:
                time.sleep(PAUSE)
        return results

    def _submit_more(self) -> None:
        while self.waiting and len(self.jobs) < self.num_at_once:
            run = self.waiting.pop(0)
            self.runs[run.number] = run
            self.jobs[run.number] = self.submit(run)

    def _tell_start(self, run: SweepRun) -> None:
        """Print the line of a job once its record is a new one."""
        if run.number not in self.records:
            return
        record = job_file.read(run.folder)
        is_new = record != self.records[run.number]
        if is_new and record["state"] != "submitted":
            del self.records[run.number]
            log.info(job_lines.start(run.folder.name, run.setting, run.folder))


def _result(run: SweepRun, job: Any) -> JobReturn:
    """What a job returned that has ended, or a failure that tells why."""
    from submitit.core.utils import FailedJobError, UncompletedJobError

    try:
        result = job.results()[0]
        why = ""
    except (FailedJobError, UncompletedJobError):
        result = None
        why = job_file.read(run.folder).get("error") or ""
        if not why:
            # of processes of this machine submitit knows no more than that they have ended
            state = "" if job.state == "FINISHED" else f"{job.state}; "
            why = f"{state}see {job.paths.stderr}"

    record = job_file.read(run.folder)
    line = job_lines.end(run.folder.name, run.setting, run.folder, record, why)
    log.log(logging.ERROR if why else logging.INFO, line)
    return result or returned(run, JobStatus.FAILED, RunError(line))
