"""The command that runs again what is not whole of a sweep, and nothing else."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from learned_opt.core.errors import UsageError
from learned_opt.runtime import sweep_plan_file
from learned_opt.runtime.run_folder import RunFolder, SweepFolder
from learned_opt.runtime.sweep_jobs import LEFT_ALONE, Job
from learned_opt.runtime.sweep_plan_file import SweepPlan

# ``-m`` stands for the mode, and folders are named once, at the end
DROPPED_OF_SWEEP = ("hydra.mode=", "hydra.sweep.dir=")
# a job that is run again by itself has neither sweeper nor launcher
DROPPED_OF_JOB = (
    "hydra.mode=",
    "hydra.run.",
    "hydra.sweep.",
    "hydra/launcher",
    "hydra.launcher.",
    "hydra/sweeper",
    "hydra.sweeper.",
)


def command(folder: Path, jobs: Sequence[Job]) -> str:
    """The command of a sweep that runs the rest; one of each job where none does that for all.

    Args:
        folder: of the sweep.
        jobs: all of it, from ``sweep_jobs.find_jobs``.

    Returns:
        str: empty where all is whole.

    Raises:
        UsageError: ``multirun.yaml`` is damaged or foreign.
    """
    unfinished = [job for job in jobs if job.state not in LEFT_ALONE]
    plan = None
    if SweepFolder(folder).plan.is_file():
        plan = sweep_plan_file.read(SweepFolder(folder).plan)

    if plan and _goes_on(plan, jobs, unfinished):
        words = [*plan.overrides, *_kept(plan.hydra_overrides, DROPPED_OF_SWEEP)]
        words += [f"hydra.sweep.dir={folder}", *_config_words(plan)]
        return f"{sweep_plan_file.command_of(plan.config_name)} -m {shlex.join(words)}"

    return "\n  ".join(_command_of_job(job) for job in unfinished)


def _goes_on(plan: SweepPlan, jobs: Sequence[Job], unfinished: Sequence[Job]) -> bool:
    """Whether the command of the sweep runs the rest when it is started again."""
    if plan.num_trials is None:
        return bool(unfinished)
    # a study keeps trials that failed by themselves as such, and asks for no others instead
    were_stopped = any(job.state != "failed" for job in unfinished)
    return were_stopped or len(jobs) < plan.num_trials


def _command_of_job(job: Job) -> str:
    """The command that runs one job in its folder, from what Hydra has kept there."""
    folder = [f"hydra.run.dir={job.folder}"]
    try:
        composed = sweep_plan_file.read(RunFolder(job.folder).hydra_config)
    except UsageError:
        # killed before it was written, or while it was: the words of ``job.json`` are left
        return f"{sweep_plan_file.command_of('config')} {shlex.join([*job.overrides, *folder])}"

    words = [*composed.overrides, *_kept(composed.hydra_overrides, DROPPED_OF_JOB)]
    words += [*folder, *_config_words(composed)]
    return f"{sweep_plan_file.command_of(composed.config_name)} {shlex.join(words)}"


def _kept(words: Sequence[str], dropped: tuple[str, ...]) -> list[str]:
    return [word for word in words if not word.startswith(dropped)]


def _config_words(plan: SweepPlan) -> list[str]:
    return [f"--config-dir={folder}" for folder in plan.config_dirs]
