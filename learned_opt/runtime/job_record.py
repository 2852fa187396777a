"""Keeps ``job.json`` of a Hydra job up to date."""

import sys
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from learned_opt.core.errors import fail
from learned_opt.runtime import slurm
from learned_opt.runtime.job_file import (
    Record,
    _now,
    describe,
    earlier,
    is_finished,
    is_of_another,
    read,
    started,
    write,
)

PLAN = "multirun.yaml"  # Hydra's record of the command that launched a sweep


def has_plugin(name: str) -> bool:
    """Whether a plugin of Hydra is installed; ``hydra_plugins`` is there only where one is."""
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{name}") is not None


class JobRecord(Callback):
    """Keeps ``job.json`` of a run up to date, and says so at once when a job of a sweep fails."""

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep begins; two in one folder are refused, before the plan of the second takes the place of the first."""
        if "optuna" in config.hydra.sweeper._target_ and not has_plugin("hydra_optuna_sweeper"):
            fail("hydra/sweeper needs Optuna, which is not installed; pip install -e '.[optuna]'.")
        folder, words = Path(config.hydra.sweep.dir), sorted(config.hydra.overrides.task)
        if (folder / PLAN).is_file():
            theirs = sorted(plan(folder).overrides.task)
            if theirs != words:
                fail(
                    f"{folder} holds another sweep ({' '.join(theirs)}); choose another hydra.sweep.dir."
                )

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """The run begins, or begins again."""
        folder, overrides = Path(config.hydra.runtime.output_dir), list(config.hydra.overrides.task)
        record, sweep = read(folder), config.hydra.mode is RunMode.MULTIRUN
        if slurm.is_first_rank() and not (
            sweep and (is_finished(record) or is_of_another(record, overrides))
        ):
            write(folder, started("running", overrides))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """The run has ended, by itself."""
        folder, overrides = Path(config.hydra.runtime.output_dir), list(config.hydra.overrides.task)
        if not slurm.is_first_rank():
            return
        outcome: Record = {"state": "finished", "ended": _now()}
        if job_return.status is JobStatus.COMPLETED:
            outcome["value"] = job_return.return_value
        else:
            outcome |= {
                "state": "failed",
                "error": describe(job_return._return_value),
            }  # the property would raise it
            if config.hydra.mode is RunMode.MULTIRUN:
                print(f"job {config.hydra.job.num} failed: {outcome['error']}", file=sys.stderr)
        record = read(folder)
        if not is_of_another(record, overrides):
            write(folder, record | outcome)


def plan(folder: Path) -> DictConfig:
    """Hydra's own node of the command that launched a sweep."""
    config = OmegaConf.load(folder / PLAN)
    assert isinstance(config, DictConfig)
    return config.hydra


def module(hydra: Any) -> str:
    """The command of a run up to its overrides: ``python -m learned_opt VERB``."""
    name = hydra.job.config_name
    verb = "" if name == "config" else name.replace("_", " ")
    return f"python -m learned_opt {verb}".rstrip()


def finished_value(folder: Path) -> float | None:
    """The result of this job of a sweep where an earlier start of it has finished, so that nothing is run twice.

    Raises:
        UsageError: the folder holds another run.
    """
    config = HydraConfig.get()
    if config.mode is not RunMode.MULTIRUN:
        return None
    record = earlier(folder, list(config.overrides.task))
    return record["value"] if is_finished(record) else None
