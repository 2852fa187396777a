"""The command line of this process, as a reader would type it."""

import shlex
import sys
from collections.abc import Sequence

from hydra.core.hydra_config import HydraConfig

from learned_opt.compose import hydra_job
from learned_opt.runtime import sweep_plan_file

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


def _verb() -> str:
    return sweep_plan_file.command_of(hydra_job.config_name())


def _words_about_hydra() -> list[str]:
    words = []
    for word in hydra_job.words_about_hydra():
        # Hydra adds the mode by itself; the words about configs have the search path
        if not word.startswith(("hydra.mode=", hydra_job.SEARCH_PATH)):
            words.append(word)
    return words
