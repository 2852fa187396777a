"""Keeps ``job.json`` of a Hydra job up to date."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig

from learned_opt.core.errors import fail
from learned_opt.runtime import job_file, slurm, sweep_plan_file
from learned_opt.runtime.run_folder import SweepFolder
from learned_opt.runtime.sweep_plan_file import SweepPlan


class JobRecord(Callback):
    """Keeps ``job.json`` of a run up to date, and says so when a job of a sweep fails."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep begins; two in one folder are refused, before the second replaces the plan."""
        if "optuna" in config.hydra.sweeper._target_ and not has_plugin("hydra_optuna_sweeper"):
            fail("hydra/sweeper needs Optuna, which is not installed; pip install -e '.[optuna]'.")

        folder = Path(config.hydra.sweep.dir)
        if SweepFolder(folder).plan.is_file():
            theirs = sorted(plan(folder).overrides)
            if theirs != sorted(config.hydra.overrides.task):
                fail(
                    f"{folder} holds another sweep ({' '.join(theirs)}); "
                    "choose another hydra.sweep.dir."
                )

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """The run begins, or begins again."""
        folder = Path(config.hydra.runtime.output_dir)
        overrides = list(config.hydra.overrides.task)
        record = job_file.read(folder)
        is_done = job_file.is_finished(record) or job_file.is_of_another(record, overrides)

        # a finished job of a sweep is not run again, and one of another sweep is refused
        is_left_alone = config.hydra.mode is RunMode.MULTIRUN and is_done
        if slurm.is_first_rank() and not is_left_alone:
            job_file.write(folder, job_file.started("running", overrides))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """The run has ended, by itself."""
        if not slurm.is_first_rank():
            return

        outcome: job_file.Record = {"state": "finished", "ended": job_file.time_stamp()}
        if job_return.status is JobStatus.COMPLETED:
            outcome["value"] = job_return.return_value
        else:
            outcome["state"] = "failed"
            # the property would raise it
            outcome["error"] = job_file.describe(job_return._return_value)

            if config.hydra.mode is RunMode.MULTIRUN:
                print(f"job {config.hydra.job.num} failed: {outcome['error']}", file=sys.stderr)

        folder = Path(config.hydra.runtime.output_dir)
        record = job_file.read(folder)
        if not job_file.is_of_another(record, list(config.hydra.overrides.task)):
            job_file.write(folder, record | outcome)


def has_plugin(name: str) -> bool:
    """Whether a plugin of Hydra is installed; ``hydra_plugins`` exists only where one is."""
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{name}") is not None


def plan(folder: Path) -> SweepPlan:
    """The command that launched a sweep.

    Raises:
        UsageError: its file is damaged or foreign.
    """
    return sweep_plan_file.read(SweepFolder(folder).plan)


def command_of(config_name: str) -> str:
    """The command of a run up to its overrides: ``python -m learned_opt VERB``.

    Args:
        config_name: the verb's config, as Hydra's own node knows it.
    """
    verb = "" if config_name == "config" else config_name.replace("_", " ")
    return f"python -m learned_opt {verb}".rstrip()


def finished_value(folder: Path) -> float | None:
    """The result of this job of a sweep where an earlier start of it has finished.

    So nothing is run twice.

    Raises:
        UsageError: the folder holds another run.
    """
    config = HydraConfig.get()
    if config.mode is not RunMode.MULTIRUN:
        return None
    record = job_file.earlier(folder, list(config.overrides.task))
    return record["value"] if job_file.is_finished(record) else None
