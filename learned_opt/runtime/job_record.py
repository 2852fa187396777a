"""Keeps ``job.json`` of a Hydra job up to date."""

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from hydra.experimental.callback import Callback
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from omegaconf.errors import OmegaConfBaseException

from learned_opt.core.errors import UsageError, fail, usage_errors
from learned_opt.core.names import check_name
from learned_opt.runtime import (
    code_state,
    current_job,
    folder_lock,
    job_file,
    job_log,
    new_folder,
    run_identity,
    shared_claim,
    slurm,
    sweep_plan_file,
)
from learned_opt.runtime.run_folder import SweepFolder
from learned_opt.runtime.sweep_plan_file import SweepPlan


class JobRecord(Callback):
    """Claims and locks the folder of a run or a sweep before Hydra writes into it."""

    def on_run_start(self, config: DictConfig, **_: Any) -> None:
        """A run begins; a folder that belongs to another one is refused before it is touched."""
        with _job_settings(config), _said_at_once():
            if slurm.is_first_rank():
                _begin_run(config)
            elif _is_new_by_name(config.hydra.run):
                _set_folder(config, shared_claim.ask(_fixed_part(config)))

    def on_multirun_start(self, config: DictConfig, **_: Any) -> None:
        """A sweep begins; two in one folder are refused, before the second replaces the plan."""
        is_study = "n_trials" in config.hydra.sweeper
        if is_study and not has_plugin("hydra_optuna_sweeper"):
            fail("hydra/sweeper needs Optuna, which is not installed; pip install -e '.[optuna]'.")

        with _job_settings(config), _said_at_once():
            folder = _begin_sweep(config)
        if SweepFolder(folder).plan.is_file():
            try:
                theirs = sorted(plan(folder).overrides)
            except UsageError as error:  # of an exception Hydra makes a warning, and goes on
                fail(str(error))
            if theirs != sorted(as_typed(config.hydra.overrides.task)):
                fail(
                    f"{folder} holds another sweep ({' '.join(theirs)}); "
                    "choose another hydra.sweep.dir."
                )


def recorded(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call the task function of Hydra as the only process in its folder, with a record of its end.

    Args:
        function: the job.
        *arguments: its own.

    Returns:
        what the function returns.

    Raises:
        UsageError: another process runs in the folder.
    """
    if not HydraConfig.initialized() or not slurm.is_first_rank():
        return function(*arguments)

    hydra = HydraConfig.get()
    folder = Path(os.path.relpath(hydra.runtime.output_dir))
    overrides = as_typed(hydra.overrides.task)
    is_in_sweep = hydra.mode is RunMode.MULTIRUN
    record = job_file.read(folder)
    # a finished job of a sweep is not run again, and one of another sweep is refused
    if is_in_sweep and (job_file.is_finished(record) or job_file.is_of_another(record, overrides)):
        return function(*arguments)

    sweep = Path(hydra.sweep.dir) if is_in_sweep else None
    folder_lock.acquire(folder, "hydra.sweep.dir" if is_in_sweep else "hydra.run.dir")
    try:
        code_state.record_start(folder, sweep)
        command = sweep_plan_file.command_of(str(hydra.job.config_name))
        job_log.write(f"starts: {command} {' '.join(overrides)}")
        value = current_job.recorded(folder, overrides, function, *arguments)
        job_log.write(f"finished: {value}")
        return value
    except BaseException as error:
        job_log.write(job_file.describe(error), error if isinstance(error, Exception) else None)
        if not is_in_sweep and _is_refusal(error):
            new_folder.take_back(folder, f"{hydra.job.name}.log")
        raise
    finally:
        folder_lock.release(folder)


def as_typed(words: Any) -> list[str]:
    """Words of a command line as a person has typed them, from a node of Hydra's.

    A word such as ``+token=${oc.env:TOKEN}`` is an interpolation to the node, which would hand out
    the secret.
    """
    texts = OmegaConf.to_container(words, resolve=False)
    assert isinstance(texts, list)
    return [str(text) for text in texts]


def _is_refusal(error: BaseException) -> bool:
    """Whether the input was refused: by us, by Hydra, or by a constructor that Hydra called."""
    if isinstance(error, SystemExit):
        return error.code == 2
    packages = [kind.__module__.split(".")[0] for kind in type(error).__mro__]
    return isinstance(error, UsageError) or "hydra" in packages or "omegaconf" in packages


def _begin_run(config: DictConfig) -> None:
    """Claim and lock the folder of a run, before Hydra writes into it.

    Raises:
        UsageError: the folder is in use, or it is that of another run.
        OSError: it cannot be written to.
    """
    folder = Path(config.hydra.run.dir)
    if isinstance(config.get("name"), str):  # before the folders above are made
        with usage_errors():
            check_name("name", config.name, is_path=True)
    if _is_new_by_name(config.hydra.run):
        above = _fixed_part(config)
        folder = new_folder.claim(folder)
        _set_folder(config, folder)
        shared_claim.tell(above, folder)
    else:
        new_folder.make(folder)

    folder_lock.acquire(folder)
    composed = OmegaConf.to_container(config, resolve=False)
    assert isinstance(composed, dict)
    composed.pop("hydra")
    run_identity.refuse_another(folder, {str(key): value for key, value in composed.items()})


def _begin_sweep(config: DictConfig) -> Path:
    """Claim and lock the folder of a sweep, which is returned.

    Raises:
        UsageError: the folder is in use.
        OSError: it cannot be written to.
    """
    folder = Path(config.hydra.sweep.dir)
    if _is_new_by_name(config.hydra.sweep):
        folder = new_folder.claim(folder)
        # a sweep that is refused later on has no plan yet
        atexit.register(new_folder.take_back, folder, "")
        # jobs are composed again from the words of the command line
        with read_write(config.hydra), open_dict(config.hydra):
            config.hydra.sweep.dir = str(folder)
            config.hydra.overrides.hydra.append(f"hydra.sweep.dir={folder}")
    else:
        folder.mkdir(parents=True, exist_ok=True)

    folder_lock.acquire(folder, "hydra.sweep.dir")
    return folder


def _is_new_by_name(node: DictConfig) -> bool:
    """Whether the name of a folder has the time in it: then it is meant to be a new one."""
    values = OmegaConf.to_container(node, resolve=False)
    assert isinstance(values, dict)
    return "${now:" in str(values["dir"])


def _set_folder(config: DictConfig, folder: Path) -> None:
    with read_write(config.hydra.run):
        config.hydra.run.dir = str(folder)


def _fixed_part(config: DictConfig) -> Path:
    """The folder above those of a run whose names have the time in them."""
    values = OmegaConf.to_container(config.hydra.run, resolve=False)
    assert isinstance(values, dict)
    fixed, _, _ = str(values["dir"]).partition("${now:")

    resolved = config.copy()
    _set_folder(resolved, Path(fixed).parent if not fixed.endswith("/") else Path(fixed))
    return Path(resolved.hydra.run.dir)


@contextmanager
def _job_settings(config: DictConfig) -> Iterator[None]:
    """Make known to interpolations what Hydra knows, which itself does so later."""
    before = HydraConfig.instance().cfg
    HydraConfig.instance().set_config(config)
    try:
        yield
    finally:
        HydraConfig.instance().cfg = before


@contextmanager
def _said_at_once() -> Iterator[None]:
    """End the process with a sentence: what leaves a callback, Hydra turns into a warning."""
    try:
        yield
    except UsageError as error:
        fail(str(error))
    except OSError as error:
        fail(f"the folder of the run cannot be made: {error}.")
    except OmegaConfBaseException as error:  # what the name of the folder refers to
        words = " ".join(str(error).splitlines()[:1])
        fail(f"the folder of the run has no name: {words}; look at name and hydra.run.dir.")


def has_plugin(name: str) -> bool:
    """Whether a plugin of Hydra is installed; ``hydra_plugins`` exists only where one is."""
    return find_spec("hydra_plugins") is not None and find_spec(f"hydra_plugins.{name}") is not None


def plan(folder: Path) -> SweepPlan:
    """The command that launched a sweep.

    Raises:
        UsageError: its file is damaged or foreign.
    """
    return sweep_plan_file.read(SweepFolder(folder).plan)


def finished_value(folder: Path) -> float | None:
    """The result of this job of a sweep where an earlier start of it has finished.

    So nothing is run twice.

    Raises:
        UsageError: the folder holds another run.
    """
    config = HydraConfig.get()
    if config.mode is not RunMode.MULTIRUN:
        return None
    record = job_file.earlier(folder, as_typed(config.overrides.task))
    return record["value"] if job_file.is_finished(record) else None
