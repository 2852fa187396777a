"""``hydra/launcher=slurm``: the jobs of a sweep as one Slurm job array, through submitit.

hydra-submitit-launcher runs a job; this adds what a sweep of long jobs needs: a job that fails or
is killed neither ends the sweep nor looks COMPLETED to Slurm, a cancelled one is noticed without an
accounting database, and finished ones are not run again.
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
from learned_opt.runtime import code_state, job_file, job_record, slurm
from learned_opt.runtime.queue_watcher import queue_watcher

log = logging.getLogger(__name__)
# Hydra takes launchers by names below hydra_plugins only
NAME = "hydra_plugins.learned_opt.SweepLauncher"


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
        self.cluster = cluster
        self.folder = submitit_folder
        self.max_num_timeout = max_num_timeout
        self.array_parallelism = array_parallelism
        self.resources: dict[str, Any] = {}

        for key, value in resources.items():
            is_node = OmegaConf.is_config(value)
            self.resources[key] = OmegaConf.to_container(value) if is_node else value

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
                "there is no sbatch on this machine; log in to the cluster, "
                "or use hydra/launcher=workstation."
            )

        from hydra_plugins.hydra_submitit_launcher.submitit_launcher import BaseSubmititLauncher

        self.config = config
        self.hydra_context = hydra_context
        self.job = _Job(BaseSubmititLauncher())
        self.job.launcher.setup(
            hydra_context=hydra_context, task_function=task_function, config=config
        )

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Submit the jobs that have not finished before, wait for all, and say which failed.

        Raises:
            UsageError: Slurm refuses the jobs, some of them are still in the queue, or the folder
                is that of others.
        """
        runs = []
        for number, overrides in enumerate(job_overrides, initial_job_idx):
            runs.append(self._run(overrides, number))

        records = {run.number: job_file.earlier(run.folder, run.task_overrides) for run in runs}
        self._refuse_if_alive(records)

        waiting = [run for run in runs if not job_file.is_finished(records[run.number])]
        if waiting:
            code_state.record_submission(Path(self.config.hydra.sweep.dir))
        submitted = {}
        for run, job in zip(waiting, self._submit(waiting), strict=True):
            submitted[run.number] = job
            self._record_submission(run, job)
        self._tell_how_many(len(waiting), len(runs))

        apart = job_file.varying([run.task_overrides for run in runs])
        results = []
        for run, differing in zip(runs, apart, strict=True):
            results.append(self._result(run, differing, submitted.get(run.number)))

        num_failed = sum(result.status is JobStatus.FAILED for result in results)
        if num_failed:
            sweep = self.config.hydra.sweep.dir
            log.error(
                "%d of %d jobs failed; python -m learned_opt collect %s",
                num_failed,
                len(runs),
                sweep,
            )

        return results

    def _record_submission(self, run: "_Run", job: Any) -> None:
        """Write that a job waits in Slurm, unless it has begun by then."""
        record = job_file.started("submitted", run.task_overrides, job.job_id)
        if self.cluster == "slurm" and job_file.read(run.folder).get("job") != record["job"]:
            job_file.write(run.folder, record)

    def _tell_how_many(self, num_waiting: int, num_jobs: int) -> None:
        sweep = self.config.hydra.sweep.dir
        log.info(
            "%d jobs are under way, %d were finished before; %s",
            num_waiting,
            num_jobs - num_waiting,
            sweep,
        )

        if self.cluster == "slurm" and num_waiting:
            log.info(
                "they go on without this terminal; python -m learned_opt collect %s shows how far "
                "they are",
                sweep,
            )

    def _run(self, overrides: Sequence[str], number: int) -> "_Run":
        config = self.hydra_context.config_loader.load_sweep_config(self.config, list(overrides))
        with open_dict(config.hydra.job):
            config.hydra.job.num = number
            config.hydra.job.id = "submitted"
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

        alive = []
        for number, record in records.items():
            if job_file.is_alive(record, queue):
                alive.append(str(number))

        if alive:
            sweep = self.config.hydra.sweep.dir
            raise UsageError(f"job {', '.join(alive)} of {sweep} is still queued or running.")

    def _submit(self, runs: Sequence["_Run"]) -> list[Any]:
        """The submitit jobs of runs, in their order."""
        from submitit.core.utils import FailedJobError

        if not runs:
            return []

        executor = self._executor()
        state = Singleton.get_state()

        calls = []
        for run in runs:
            job_id = f"job_id_for_{run.number}"
            calls.append((run.overrides, "hydra.sweep.dir", run.number, job_id, state))

        if self.cluster == "local":
            return _submit_a_few_at_once(executor, self.job, calls, self.array_parallelism)

        try:
            return executor.map_array(self.job, *zip(*calls, strict=True))
        except FailedJobError as error:
            raise UsageError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from error

    def _executor(self) -> Any:
        import submitit
        from hydra_plugins.hydra_submitit_launcher.config import BaseQueueConf

        devices = self.resources["tasks_per_node"]
        if not isinstance(devices, int):
            raise UsageError(
                f"trainer.devices must be a number under hydra/launcher={self.cluster}, "
                f"got {devices!r}."
            )

        shared = {field.name for field in dataclasses.fields(BaseQueueConf)}
        parameters = {}
        for key, value in self.resources.items():
            if value is not None:
                parameters[key if key in shared else f"slurm_{key}"] = value

        try:
            executor = submitit.AutoExecutor(
                self.folder, cluster=self.cluster, slurm_max_num_timeout=self.max_num_timeout
            )
            executor.update_parameters(**parameters, slurm_array_parallelism=self.array_parallelism)
        except (ValueError, NameError, TypeError) as error:
            raise UsageError(f"hydra.launcher: {' '.join(str(error).split())}") from error

        if self.cluster == "slurm":
            submitit.SlurmJob.watcher = queue_watcher()

        return executor

    def _result(self, run: "_Run", apart: Mapping[str, str], job: Any) -> JobReturn:
        """Wait for a job; what it returned, or a failure that says why."""
        if job is None:
            record = job_file.read(run.folder)
            return _returned(run, JobStatus.COMPLETED, record["value"])

        from submitit.core.utils import FailedJobError, UncompletedJobError

        try:
            return job.results()[0]
        except (FailedJobError, UncompletedJobError):
            why = job_file.read(run.folder).get("error")
            if not why:
                why = f"it was killed ({job.state.lower()}); see {job.paths.stderr}"

            setting = ", ".join(f"{key}={value}" for key, value in apart.items())
            message = f"job {run.number} ({setting}) failed: {why}"
            log.error(message)
            return _returned(run, JobStatus.FAILED, RunError(message))


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
        # raises what the job raised: submitit writes it down, and Slurm sees exit code 1
        _ = result.return_value
        return result

    def checkpoint(self, *arguments: Any) -> Any:
        """What submitit puts into the queue when the time limit is near."""
        import submitit

        return submitit.helpers.DelayedSubmission(self, *arguments)


def _returned(run: _Run, status: JobStatus, value: Any) -> JobReturn:
    return JobReturn(overrides=run.task_overrides, status=status, _return_value=value)


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
