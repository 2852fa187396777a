"""What ``-m`` does unless another launcher is chosen: jobs in this process, one after the other."""

import logging
from collections.abc import Sequence

from hydra._internal.core_plugins import basic_launcher
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig

from learned_opt.runtime import job_file, job_lines
from learned_opt.runtime.sweep_run import SweepRun, compose_runs, returned_before, summarised

log = logging.getLogger(__name__)
# its lines count jobs from zero in every call
QUIET = logging.getLogger(basic_launcher.__name__)


class SerialLauncher(Launcher):
    """Hydra's launcher of jobs in this process, with a line as each starts and as it ends."""

    def __init__(self) -> None:
        self.launcher = basic_launcher.BasicLauncher()

    def setup(
        self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig
    ) -> None:
        """Take what jobs are made of."""
        self.config = config
        self.hydra_context = hydra_context
        self.launcher.setup(hydra_context=hydra_context, task_function=task_function, config=config)

    def launch(
        self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int
    ) -> Sequence[JobReturn]:
        """Run the jobs; one that fails leaves the others alone.

        Raises:
            RunError: some jobs of a sweep that is not a study have failed.
        """
        QUIET.setLevel(logging.WARNING)
        runs = compose_runs(self.hydra_context, self.config, job_overrides, initial_job_idx)

        with summarised(self.config, runs):
            return [self._launch_one(run) for run in runs]

    def _launch_one(self, run: SweepRun) -> JobReturn:
        before = job_file.read(run.folder)
        if finished := returned_before(run, before):
            return finished

        name = run.folder.name
        log.info(job_lines.start(name, run.setting, run.folder))
        (result,) = self.launcher.launch([run.overrides], run.number)
        record = job_file.read(run.folder)
        has_failed = result.status is JobStatus.FAILED
        if has_failed and record == before:
            # it was refused before it could write a record; the property would raise the error
            why = job_file.describe(result._return_value)
            record = {**job_file.started("failed", run.task_overrides), "error": why}
            is_of_another = before and before.get("overrides") != run.task_overrides
            if not is_of_another:  # whose record stays
                job_file.write(run.folder, record)

        line = job_lines.end(name, run.setting, run.folder, record)
        log.log(logging.ERROR if has_failed else logging.INFO, line)
        return result
