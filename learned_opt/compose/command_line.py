"""The command line of this process, as a reader would type it."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from hydra.core.hydra_config import HydraConfig

from learned_opt.compose import hydra_job
from learned_opt.runtime import sweep_plan_file
from learned_opt.runtime.run_folder import RunFolder

VERB_KEY = "verb="  # how a config knows a second word such as ``zoo build``


def command() -> str:
    """``python -m learned_opt VERB WORD...``, without the path of the machine.

    A job of a sweep runs in a process of the launcher, so that what Hydra has composed is asked
    first.
    """
    if HydraConfig.initialized():
        words = [*hydra_job.overrides(), *_words_about_hydra(), *hydra_job.config_words()]
        return " ".join([_verb(), *words])
    return f"python -m learned_opt {shlex.join(sys.argv[1:])}".strip()


def command_to_go_on(overrides: Sequence[str]) -> str:
    """The command of this job in the folder that it has, quoted for a shell.

    Args:
        overrides: words that change the config.
    """
    about_hydra = []
    for word in _words_about_hydra():
        if not word.startswith("hydra.run.dir="):
            about_hydra.append(word)

    verb = _verb()
    rest = []
    for word in overrides:
        if word.startswith(VERB_KEY):
            verb += f" {word.removeprefix(VERB_KEY)}"
        else:
            rest.append(word)

    folder = f"hydra.run.dir={hydra_job.folder()}"
    words = shlex.join([*rest, *about_hydra, *hydra_job.config_words(), folder])
    return f"{verb} {words}"


def way_on(kept: str = "What it had written is whole.") -> str:
    """How to go on with this job after a signal has ended it.

    Args:
        kept: sentences about what is not done again.
    """
    if hydra_job.is_in_sweep():
        sweep = hydra_job.sweep_folder()
        return (
            "Jobs that have finished are kept; which have not, and the command that goes on:\n"
            f"  python -m learned_opt collect {shlex.quote(str(sweep))}"
        )
    return f"{kept} To go on:\n  {command_to_go_on(hydra_job.overrides())}"


def way_on_of_training(overrides: Sequence[str], folder: Path) -> str:
    """``way_on`` of a meta-training that is ended at once.

    Args:
        overrides: words that change the config.
        folder: of the run.
    """
    steps = [0]
    for path in RunFolder(folder).checkpoints.glob("step_*.ckpt"):
        steps.append(int(path.stem.removeprefix("step_")))
    return (
        f"The last checkpoint is that of outer step {max(steps)}; what came behind it is made "
        f"again. To go on:\n  {command_to_go_on(overrides)}"
    )


def way_on_of_comparison(overrides: Sequence[str], folder: Path, archive: str | None) -> str:
    """``way_on`` of the comparison that follows a meta-training.

    Args:
        overrides: words that change the config.
        folder: of the run.
        archive: folder of the tuning runs; None where none is kept.
    """
    kept = f"theta is trained and kept in {folder}; no outer step is made twice."
    return f"{kept} {of_tuning(archive)} To go on:\n  {command_to_go_on(overrides)}"


def of_tuning(archive: str | None) -> str:
    """What is kept of the tuning of baselines."""
    if archive is None:
        return "Tuning runs are not kept (benchmark.archive is null)."
    return f"Tuning runs that were done are kept in {archive} and are not made again."


def _verb() -> str:
    return sweep_plan_file.command_of(str(HydraConfig.get().job.config_name))


def _words_about_hydra() -> list[str]:
    words = []
    for word in hydra_job.words_about_hydra():
        # Hydra adds this one by itself: it is no word of the command line
        if not word.startswith("hydra.mode="):
            words.append(word)
    return words
