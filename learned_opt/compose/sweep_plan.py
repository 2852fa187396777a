"""The jobs that a sweep should have, and the command that runs again what is not whole."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from learned_opt.core.errors import UsageError
from learned_opt.runtime import job_record, sweep_jobs
from learned_opt.runtime.run_folder import SweepFolder
from learned_opt.runtime.sweep_jobs import LEFT_ALONE, Job


def find_jobs(folder: Path) -> list[Job]:
    """All jobs of a sweep, those included that have not begun.

    Raises:
        UsageError: the folder is none of a sweep.
    """
    return sweep_jobs.find_jobs(folder, _planned(folder))


def command(folder: Path, jobs: Sequence[Job]) -> str:
    """The command that runs again what is not whole, and nothing else; empty where all is."""
    unfinished = [job for job in jobs if job.state not in LEFT_ALONE]
    if not unfinished:
        return ""
    if not SweepFolder(folder).plan.is_file():  # of a sweeper that decides as it goes
        commands = []
        for job in unfinished:
            words = [*job.overrides, f"hydra.run.dir={job.folder}"]
            commands.append(f"python -m learned_opt {shlex.join(words)}")
        return "\n  ".join(commands)

    plan = job_record.plan(folder)
    words = list(plan.overrides)
    # ``-m`` stands for the mode, and the folder is named once, at the end
    for word in plan.hydra_overrides:
        if not word.startswith(("hydra.mode=", "hydra.sweep.dir=")):
            words.append(word)

    words.append(f"hydra.sweep.dir={folder}")
    return f"{job_record.command_of(plan.config_name)} -m {shlex.join(words)}"


def _planned(folder: Path) -> list[list[str]]:
    """Overrides of each job of Hydra's own sweeper; empty for one that decides as it goes."""
    if not SweepFolder(folder).plan.is_file():
        return []

    plan = job_record.plan(folder)
    is_basic = plan.sweeper.endswith("BasicSweeper")
    if not is_basic or "glob(" in str(plan.overrides):
        return []

    words = [f"{key}={value}" for key, value in plan.params.items()]
    try:
        overrides = OverridesParser.create().parse_overrides([*words, *plan.overrides])
        # without a limit all jobs are in the first batch
        return BasicSweeper.split_arguments(overrides, None)[0]
    except HydraException as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{SweepFolder(folder).plan} is damaged: {reason}.") from error
