"""``hydra/launcher=slurm``: the jobs of a sweep as one Slurm job array, through submitit.

hydra-submitit-launcher runs a job; this adds what a sweep of long jobs needs: a job that fails or is killed neither
ends the sweep nor looks COMPLETED to Slurm, a cancelled one is noticed without an accounting database, and finished
ones are not run again.
"""

import dataclasses
import logging
import shutil
import time
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.plugins import Plugins
from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from learned_opt.core.errors import RunError, UsageError
from learned_opt.runtime import job_file, job_record, slurm

log = logging.getLogger(__name__)
NAME = "hydra_plugins.learned_opt.SweepLauncher"  # Hydra takes launchers by names below hydra_plugins only
POLL_SECONDS = 60  # longest time between two looks into the queue


def register() -> None:
    """Make the launcher known to Hydra."""
    Plugins.instance().class_name_to_class[NAME] = SweepLauncher


class SweepLauncher(Launcher):
    """Jobs of a sweep on Slurm, or as processes of this machine.

    Args:
        cluster: ``slurm`` or ``local``.
        submitit_folder: where submitit keeps its files and the logs of the jobs.
        max_num_timeout: how often a job that runs into its time limit is queued again.
        array_parallelism: jobs at the same time.
        **resources: what submitit asks for; see ``configs/hydra/launcher``.
    """

    def __init__(
        self,
        cluster: str,
        submitit_folder: str,
        max_num_timeout: int,
        array_parallelism: int,
        **resources: Any,
    ) -> None:
        self.cluster, self.folder, self.max_num_timeout = cluster, submitit_folder, max_num_timeout
        self.array_parallelism = array_parallelism
        self.resources = {
            k: OmegaConf.to_container(v) if OmegaConf.is_config(v) else v
            for k, v in resources.items()
        }

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what jobs are made of.

        Raises:
            UsageError: this machine cannot launch such jobs.
        """
        if find_spec("submitit") is None or not job_record.has_plugin("hydra_submitit_launcher"):
            raise UsageError(
                "hydra/launcher needs submitit, which is not installed; pip install -e '.[slurm]'."
            )
        if self.cluster == "slurm" and shutil.which("sbatch") is None:
            raise UsageError(
                "there is no sbatch on this machine; log in to the cluster, or use hydra/launcher=workstation."
            )
        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

        self.config, self.hydra_context = config, hydra_context
        self.job = _Job(BaseSubmititLauncher())
        self.job.launcher.setup(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit the jobs that have not finished before, wait for all, and say which failed.

        Raises:
            UsageError: Slurm refuses the jobs, some of them are still in the queue, or the folder is that of others.
        """
        numbers = range(initial_job_idx, initial_job_idx + len(job_overrides))
        runs = [
            self._run(overrides, number)
            for number, overrides in zip(numbers, job_overrides, strict=True)
        ]
        apart = job_file.varying([run.task_overrides for run in runs])
        records = {run.number: job_file.earlier(run.folder, run.task_overrides) for run in runs}
        self._refuse_if_alive(records)
        waiting = [run for run in runs if not job_file.is_finished(records[run.number])]
        submitted = dict(zip((run.number for run in waiting), self._submit(waiting), strict=True))
        for run in waiting:
            record = job_file.started("submitted", run.task_overrides, submitted[run.number].job_id)
            if self.cluster == "slurm" and job_file.read(run.folder).get("job") != record["job"]:
                job_file.write(run.folder, record)
        sweep = self.config.hydra.sweep.dir
        log.info(
            "%d jobs are under way, %d were finished before; %s",
            len(waiting),
            len(runs) - len(waiting),
            sweep,
        )
        if self.cluster == "slurm" and waiting:
            log.info(
                "they go on without this terminal; python -m learned_opt collect %s shows how far they are",
                sweep,
            )
        results = [
            self._result(run, own, submitted.get(run.number))
            for run, own in zip(runs, apart, strict=True)
        ]
        failed = [result for result in results if result.status is JobStatus.FAILED]
        if failed:
            log.error(
                "%d of %d jobs failed; python -m learned_opt collect %s",
                len(failed),
                len(runs),
                sweep,
            )
        return results

    def _run(self, overrides: Sequence[str], number: int) -> "_Run":
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config.hydra.job):
            config.hydra.job.num, config.hydra.job.id = number, "submitted"
        folder = Path(config.hydra.sweep.dir) / str(config.hydra.sweep.subdir)
        return _Run(number, list(overrides), list(config.hydra.overrides.task), folder)

    def _refuse_if_alive(self, records: Mapping[int, job_file.Record]) -> None:
        if not any(records.values()):
            return
        try:
            queue = slurm.queue() if self.cluster == "slurm" else {}
        except OSError as error:
            raise UsageError(
                f"whether jobs of this sweep still run is not known: {error}."
            ) from error
        alive = [
            str(number) for number, record in records.items() if job_file.is_alive(record, queue)
        ]
        if alive:
            raise UsageError(
                f"job {', '.join(alive)} of {self.config.hydra.sweep.dir} is still queued or running."
            )

    def _submit(self, runs: Sequence["_Run"]) -> list[Any]:
        """The submitit jobs of runs, in their order."""
        from submitit.core.utils import FailedJobError

        if not runs:
            return []
        executor = self._executor()
        state = Singleton.get_state()
        calls = [
            (run.overrides, "hydra.sweep.dir", run.number, f"job_id_for_{run.number}", state)
            for run in runs
        ]
        if self.cluster == "local":
            return _submit_a_few_at_once(executor, self.job, calls, self.array_parallelism)
        try:
            return executor.map_array(self.job, *zip(*calls, strict=True))
        except FailedJobError as error:
            raise UsageError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from error

    def _executor(self) -> Any:
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        if not isinstance(devices := self.resources["tasks_per_node"], int):
            raise UsageError(
                f"trainer.devices must be a number under hydra/launcher={self.cluster}, got {devices!r}."
            )
        shared = {field.name for field in dataclasses.fields(BaseQueueConf)}
        try:
            executor = submitit.AutoExecutor(
                self.folder, cluster=self.cluster, slurm_max_num_timeout=self.max_num_timeout
            )
            named = {
                k if k in shared else f"slurm_{k}": v
                for k, v in self.resources.items()
                if v is not None
            }
            executor.update_parameters(**named, slurm_array_parallelism=self.array_parallelism)
        except (ValueError, NameError, TypeError) as error:
            raise UsageError(f"hydra.launcher: {' '.join(str(error).split())}") from error
        if self.cluster == "slurm":
            submitit.SlurmJob.watcher = _queue_watcher()
        return executor

    def _result(self, run: "_Run", apart: Mapping[str, str], job: Any) -> JobReturn:
        """Wait for a job; what it returned, or a failure that says why."""
        if job is None:
            record = job_file.read(run.folder)
            return JobReturn(
                overrides=run.task_overrides,
                status=JobStatus.COMPLETED,
                _return_value=record["value"],
            )
        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return job.results()[0]
        except (FailedJobError, UncompletedJobError):
            record = job_file.read(run.folder)
            why = (
                record.get("error")
                or f"it was killed ({job.state.lower()}); see {job.paths.stderr}"
            )
            setting = ", ".join(f"{key}={value}" for key, value in apart.items())
            message = f"job {run.number} ({setting}) failed: {why}"
            log.error(message)
            return JobReturn(
                overrides=run.task_overrides,
                status=JobStatus.FAILED,
                _return_value=RunError(message),
            )


@dataclasses.dataclass(frozen=True)
class _Run:
    number: int
    overrides: list[str]  # as the sweeper gives them
    task_overrides: list[str]  # as Hydra writes them into the run folder
    folder: Path


@dataclasses.dataclass(frozen=True)
class _Job:
    """What is pickled to where the job runs."""

    launcher: Any

    def __call__(self, *arguments: Any) -> JobReturn:
        result = self.launcher(*arguments)
        _ = (
            result.return_value
        )  # raises what the job raised: submitit writes it down, and Slurm sees exit code 1
        return result

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit puts into the queue when the time limit is near."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)


def _submit_a_few_at_once(
    executor: Any, job: _Job, calls: Sequence[tuple], at_once: int
) -> list[Any]:
    """Start processes of this machine; returns when the last one has started."""
    submitted: list[Any] = []
    for call in calls:
        while sum(not other.done() for other in submitted) >= at_once:
            time.sleep(1)
        submitted.append(executor.submit(job, *call))
    return submitted


def _queue_watcher() -> Any:
    """A watcher of submitit that asks squeue, which every Slurm has.

    submitit asks sacct; without an accounting database that fails, and a cancelled job is waited for without end.
    """
    from submitit.slurm.slurm import SlurmInfoWatcher

    class QueueWatcher(SlurmInfoWatcher):
        def _make_command(self) -> list[str] | None:
            return slurm.QUEUE_COMMAND if self._registered - self._finished else None

        def read_info(self, string: bytes | str) -> dict[str, dict[str, str]]:
            states = slurm.parse_queue(string if isinstance(string, str) else string.decode())
            return {job: {"State": _as_submitit_says(states.get(job))} for job in self._registered}

    return QueueWatcher(delay_s=POLL_SECONDS)


def _as_submitit_says(state: str | None) -> str:
    """A state for submitit, which takes one that it does not know, such as CONFIGURING, for an end."""
    return "RUNNING" if slurm.is_alive(state) else state or "GONE FROM THE QUEUE"
