"""The command line of this process, as a reader would type it."""

import shlex
import sys

from hydra.core.hydra_config import HydraConfig

from learned_opt.compose import hydra_job
from learned_opt.runtime import job_record


def command() -> str:
    """``python -m learned_opt VERB WORD...``, without the path of the machine.

    A job of a sweep runs in a process of the launcher, so that what Hydra has composed is asked
    first.
    """
    if HydraConfig.initialized():
        hydra = HydraConfig.get()
        typed = []
        for word in hydra.overrides.hydra:
            # Hydra adds this one by itself: it is no word of the command line
            if not word.startswith("hydra.mode="):
                typed.append(word)

        words = [*hydra.overrides.task, *typed, *hydra_job.config_words()]
        return " ".join([job_record.command_of(str(hydra.job.config_name)), *words])
    return f"python -m learned_opt {shlex.join(sys.argv[1:])}".strip()
