"""``hydra/launcher=slurm``: the jobs of a sweep as one Slurm job array, through submitit.

hydra-submitit-launcher runs a job; this adds what a sweep of long jobs needs: a job that fails or
is killed neither ends the sweep nor looks COMPLETED to Slurm, a cancelled one is noticed without an
accounting database, and finished ones are not run again.
"""

import dataclasses
import logging
import shutil
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.singleton import Singleton
from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf

from learned_opt.core.errors import UsageError
from learned_opt.runtime import code_state, job_file, job_record, slurm
from learned_opt.runtime.queue_watcher import queue_watcher
from learned_opt.runtime.submitted_jobs import SubmittedJobs
from learned_opt.runtime.sweep_run import SweepRun, compose_runs, returned_before, summarised

log = logging.getLogger(__name__)


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
        runs = compose_runs(self.hydra_context, self.config, job_overrides, initial_job_idx)
        records = {run.number: job_file.earlier(run.folder, run.task_overrides) for run in runs}
        self._refuse_if_alive(records)

        waiting = []
        results = {}
        for run in runs:
            result = returned_before(run, records[run.number])
            if result is None:
                waiting.append(run)
            else:
                results[run.number] = result

        if waiting:
            code_state.record_submission(Path(self.config.hydra.sweep.dir))
        jobs = self._jobs(waiting, records)
        self._tell_how_many(len(waiting), len(runs))

        with summarised(self.config, runs):
            results |= jobs.results()
        return [results[run.number] for run in runs]

    def _record_submission(self, run: SweepRun, job: Any) -> None:
        """Write that a job waits in Slurm, unless it has begun by then."""
        record = job_file.started("submitted", run.task_overrides, job.job_id)
        if job_file.read(run.folder).get("job") != record["job"]:
            job_file.write(run.folder, record)

    def _tell_how_many(self, num_waiting: int, num_jobs: int) -> None:
        sweep = self.config.hydra.sweep.dir
        verb = "are to run" if self.cluster == "local" else "are under way"
        log.info(
            "%d jobs %s, %d were finished before; %s",
            num_waiting,
            verb,
            num_jobs - num_waiting,
            sweep,
        )

        if self.cluster == "slurm" and num_waiting:
            log.info(
                "they go on without this terminal; python -m learned_opt collect %s shows how far "
                "they are",
                sweep,
            )

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

    def _jobs(
        self, runs: Sequence[SweepRun], records: Mapping[int, job_file.Record]
    ) -> SubmittedJobs:
        """The jobs of runs: in Slurm's queue, or to be started here a few at once."""
        from submitit.core.utils import FailedJobError

        if not runs:
            return SubmittedJobs([], lambda run: run, records, 0)

        executor = self._executor()
        state = Singleton.get_state()
        calls = {}
        for run in runs:
            job_id = f"job_id_for_{run.number}"
            calls[run.number] = (run.overrides, "hydra.sweep.dir", run.number, job_id, state)

        if self.cluster == "local":
            return SubmittedJobs(
                runs,
                lambda run: executor.submit(self.job, *calls[run.number]),
                records,
                self.array_parallelism,
            )

        try:
            queued = executor.map_array(self.job, *zip(*calls.values(), strict=True))
        except FailedJobError as error:
            raise UsageError(f"Slurm refuses the jobs: {' '.join(str(error).split())}") from error

        jobs = dict(zip(calls, queued, strict=True))
        for run in runs:
            self._record_submission(run, jobs[run.number])
        return SubmittedJobs(runs, lambda run: jobs[run.number], records, len(runs))

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
