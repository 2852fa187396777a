"""``python -m learned_opt.evaluate`` and its like, as commands were once written: now verbs.

Python would say that there is no such module, or run one that does nothing and end with 0.
"""

import re
from collections.abc import Sequence

from learned_opt.commands.help_pages import CONFIGS, VERBS
from learned_opt.core.errors import fail

PACKAGE = "learned_opt"
# commands that have another name as a verb
RENAMED = {"suite": "evaluate", "compare": "evaluate", "meta_train": "train", "training": "train"}
MODULE_FLAG = re.compile(r"-[A-Za-z]*m")  # with others of one letter before it, such as -um


def refuse_module(command: Sequence[str]) -> None:
    """End the process where Python was told to run a module of this package, as it has no such.

    Args:
        command: all words with which Python was started.
    """
    module = _module_of(command)
    if not module.startswith(f"{PACKAGE}.") or module == f"{PACKAGE}.__main__":
        return

    name = module.rpartition(".")[2]
    verb = RENAMED.get(name, name).replace("_", " ")
    if verb in {*VERBS, *CONFIGS}:
        fail(f"{module} is no command; write: python -m {PACKAGE} {verb}, then the same words.")
    fail(f"{module} is no command; python -m {PACKAGE} --help lists those that there are.")


def _module_of(command: Sequence[str]) -> str:
    """The module that the words name for Python to run; empty where they name none."""
    for index, word in enumerate(command[1:], start=1):
        if MODULE_FLAG.fullmatch(word):
            return "".join(command[index + 1 : index + 2])
        if word.startswith("-m"):
            return word.removeprefix("-m")
        if not word.startswith("-") and command[index - 1] not in ("-W", "-X"):
            return ""  # a script, and its words
    return ""
