"""The jobs that a sweep should have, and the command that runs again what is not whole."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from learned_opt.runtime import job_record, sweep_jobs
from learned_opt.runtime.sweep_jobs import LEFT_ALONE, Job


def find_jobs(folder: Path) -> list[Job]:
    """All jobs of a sweep, see ``runtime.sweep_jobs.find_jobs``."""
    return sweep_jobs.find_jobs(folder, _planned(folder))


def _planned(folder: Path) -> list[list[str]]:
    """Overrides of each job of Hydra's own sweeper; empty for one that decides as it goes."""
    if not (folder / job_record.PLAN).is_file():
        return []
    hydra = job_record.plan(folder)
    if not hydra.sweeper._target_.endswith("BasicSweeper") or "glob(" in str(hydra.overrides.task):
        return []
    words = [f"{key}={value}" for key, value in (hydra.sweeper.params or {}).items()]
    overrides = OverridesParser.create().parse_overrides([*words, *hydra.overrides.task])
    return BasicSweeper.split_arguments(overrides, None)[0]


def command(folder: Path, found: Sequence[Job]) -> str:
    """The command that runs again what is not whole, and nothing else; empty where all is."""
    if all(job.state in LEFT_ALONE for job in found):
        return ""
    if not (folder / job_record.PLAN).is_file():  # of a sweeper that decides as it goes
        words = [
            [*job.overrides, f"hydra.run.dir={job.folder}"]
            for job in found
            if job.state not in LEFT_ALONE
        ]
        return "\n  ".join(f"python -m learned_opt {shlex.join(own)}" for own in words)
    hydra = job_record.plan(folder)
    own = [
        word
        for word in hydra.overrides.hydra
        if not word.startswith(("hydra.mode=", "hydra.sweep.dir="))
    ]
    return f"{job_record.module(hydra)} -m {shlex.join([*hydra.overrides.task, *own, f'hydra.sweep.dir={folder}'])}"
