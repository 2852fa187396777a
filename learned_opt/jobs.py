"""``job.json``: what has become of a run, in its own folder.

A process that is killed leaves "running" behind; ``is_alive`` asks the queue or the process table whether that is so.
"""

import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.core.utils import JobReturn, JobStatus
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from learned_opt import cluster
from learned_opt.cli import UsageError, fail

FILE = "job.json"
PLAN = "multirun.yaml"  # Hydra's record of the command that launched a sweep
Record = dict[str, Any]


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
                fail(f"{folder} holds another sweep ({' '.join(theirs)}); choose another hydra.sweep.dir.")

    def on_job_start(self, config: DictConfig, **_: Any) -> None:
        """The run begins, or begins again."""
        folder, overrides = Path(config.hydra.runtime.output_dir), list(config.hydra.overrides.task)
        record, sweep = read(folder), config.hydra.mode is RunMode.MULTIRUN
        if cluster.is_first_rank() and not (sweep and (is_finished(record) or is_of_another(record, overrides))):
            write(folder, started("running", overrides))

    def on_job_end(self, config: DictConfig, job_return: JobReturn, **_: Any) -> None:
        """The run has ended, by itself."""
        folder, overrides = Path(config.hydra.runtime.output_dir), list(config.hydra.overrides.task)
        if not cluster.is_first_rank():
            return
        outcome: Record = {"state": "finished", "ended": _now()}
        if job_return.status is JobStatus.COMPLETED:
            outcome["value"] = job_return.return_value
        else:
            outcome |= {"state": "failed", "error": describe(job_return._return_value)}  # the property would raise it
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
    """The entry point of a run, as ``python -m`` takes it."""
    name = hydra.job.config_name
    return "learned_opt" if name == "config" else f"learned_opt.{name}"


def started(state: str, overrides: Sequence[str], job: str | None = None) -> Record:
    """The record of a run that begins here or, with ``job``, somewhere in Slurm."""
    where = {"job": job or cluster.job_id(), "host": socket.gethostname(), "pid": os.getpid()}
    return {"state": state, "overrides": list(overrides), **where, "started": _now()}


def read(folder: Path) -> Record:
    """The record of a run; empty where there is none."""
    try:
        return json.loads((folder / FILE).read_text())
    except FileNotFoundError:
        return {}


def write(folder: Path, record: Record) -> None:
    """Replace the record of a run in one move."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f"{FILE}.partial"
    partial.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(partial, folder / FILE)


def is_finished(record: Record) -> bool:
    """Whether the run has come to its end."""
    return record.get("state") == "finished"


def is_of_another(record: Record, overrides: Sequence[str]) -> bool:
    """Whether the folder is that of a run with other overrides."""
    return bool(record) and sorted(record["overrides"]) != sorted(overrides)


def earlier(folder: Path, overrides: Sequence[str]) -> Record:
    """The record that a job of a sweep finds in its folder.

    Raises:
        UsageError: it is of another run; the two would go on from each other's checkpoint.
    """
    record = read(folder)
    if is_of_another(record, overrides):
        theirs = " ".join(record["overrides"])
        raise UsageError(f"{folder} holds another run ({theirs}); choose another hydra.sweep.dir.")
    return record


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


def is_alive(record: Record, queue: Mapping[str, str]) -> bool:
    """Whether a run that says so is still going on, or is still to begin.

    Args:
        record: its ``job.json``.
        queue: Slurm's jobs, id -> state; empty where there is no Slurm.
    """
    if record.get("state") not in ("running", "submitted"):
        return False
    if record["job"]:
        return cluster.is_alive(queue.get(record["job"]))
    return record["host"] == socket.gethostname() and _process_exists(record["pid"])


def varying(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Of each job what sets it apart from the others, key -> value."""
    split = []
    for words in overrides:
        pairs = (word.lstrip("+~").partition("=") for word in words)
        split.append({key: value for key, _, value in pairs})
    keys = dict.fromkeys(key for own in split for key in own)
    return [{key: own.get(key, "") for key in keys if len({o.get(key) for o in split}) > 1} for own in split]


def describe(error: BaseException) -> str:
    """An exception in one line; those that speak to people do without the name of their class."""
    text = " ".join(str(error).split())
    return text if isinstance(error, UsageError) else f"{type(error).__name__}: {text}"


def _process_exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)  # sends nothing
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _now() -> str:
    return datetime.now().astimezone().isoformat(timespec="seconds")
