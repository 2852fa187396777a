"""The jobs that a sweep should have, by the command that launched it."""

from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException

from learned_opt.core.errors import UsageError
from learned_opt.runtime import sweep_jobs, sweep_plan_file
from learned_opt.runtime.run_folder import SweepFolder
from learned_opt.runtime.sweep_jobs import Job


def find_jobs(folder: Path) -> list[Job]:
    """All jobs of a sweep, those included that have not begun.

    Raises:
        UsageError: the folder is none of a sweep.
    """
    return sweep_jobs.find_jobs(folder, _planned(folder))


def _planned(folder: Path) -> list[list[str]]:
    """Overrides of each job of Hydra's own sweeper; empty for one that decides as it goes."""
    if not SweepFolder(folder).plan.is_file():
        return []

    plan = sweep_plan_file.read(SweepFolder(folder).plan)
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
