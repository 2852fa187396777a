"""The words of a command line, as people and sweep agents write them, made those that Hydra reads.

Imports nothing heavy.
"""

import re
from collections.abc import Sequence
from pathlib import Path

from learned_opt.compose import config_files
from learned_opt.core.errors import UsageError

# what -v stands for: debug lines of this program alone
VERBOSE = "hydra.verbose=[learned_opt,tasks,__main__]"
# flags of Hydra itself that take a value behind =
HYDRA_FLAGS = (
    "--cfg",
    "--config-dir",
    "--config-name",
    "--config-path",
    "--experimental-rerun",
    "--info",
    "--package",
    "--shell-completion",
)
SHORT_FLAGS = ("-c", "-cd", "-cn", "-cp", "-p")  # of the same
# keys that a task file or an experiment may add beside those of the commands
OPTIONAL_KEYS = {"mix", "task", "network", "data", "augment"}
DEBUG = ("+debug=", "debug=")
# keys of former versions -> the one word that there is for that thing
RENAMED = {"ckpt": "checkpoint", "checkpoints": "theta"}
MAX_SHOWN = 60  # letters of a word in a sentence
# of the trainer that leave a run without the files that everything after it reads
REFUSED_OF_TRAINER = {
    "fast_dev_run": "it writes no files; trainer.max_steps=2 is a short run",
    "logger": "the config group logger chooses them",
    "callbacks": "the config group callbacks chooses them",
    "barebones": "it logs nothing",
}


def as_hydra_reads(words: Sequence[str]) -> list[str]:
    """The same meaning in Hydra's grammar, flags behind overrides.

    ``--KEY=VALUE``, as agents of W&B write it, is ``KEY=VALUE``; ``task=NAME`` stands with or
    without its plus, whether or not an experiment brings a task, and so does ``debug=NAME``, which
    lies over the task; ``-v`` shows debug lines.

    >>> as_hydra_reads(["--seed=1", "task=mlp"])
    ['seed=1', '+task=mlp']
    >>> as_hydra_reads(["+task=mlp", "-cd", "mine", "seed=1"])
    ['+task=mlp', 'seed=1', '-cd', 'mine']
    >>> as_hydra_reads(["debug=quick", "task=mlp"])
    ['+task=mlp', '+debug=quick']
    """
    plain = []
    flags = []
    rest = list(words)
    while rest:
        word = rest.pop(0)
        flag, has_value, _ = word.partition("=")
        if word == "-v":
            plain.append(VERBOSE)
        elif has_value and word.startswith("--") and flag not in HYDRA_FLAGS:
            plain.append(word.removeprefix("--"))
        elif word.startswith("-"):
            flags.append(word)
            if rest and not has_value and _takes(flag, rest[0]):
                flags.append(rest.pop(0))
        else:
            plain.append(word)

    plus = "" if _brings_task(plain) else "+"
    overrides = [re.sub(r"^\+?task=", f"{plus}task=", word) for word in plain]
    # the file that comes last wins: one of debug over that of the task
    overrides.sort(key=lambda word: word.startswith(DEBUG))
    overrides = [re.sub(r"^debug=", "+debug=", word) for word in overrides]
    # Hydra takes overrides in one piece only
    return [*overrides, *flags]


def _takes(flag: str, word: str) -> bool:
    """Whether the word behind a flag of Hydra is its value."""
    if flag in ("--info", "-i"):
        return "=" not in word and not word.startswith("-")
    return flag in (*HYDRA_FLAGS, *SHORT_FLAGS)


def check_words(words: Sequence[str]) -> None:
    """Refuse words that Hydra would answer with a traceback, or take without a word.

    Raises:
        UsageError: names the word and what to write.
    """
    _refuse_two_tasks(words)
    groups = config_files.groups()
    known = {*groups, *OPTIONAL_KEYS, *_keys_of_commands()}
    for word in words:
        key, has_value, value = word.lstrip("+~").partition("=")
        if not has_value or word.startswith("-"):
            continue

        group = key.partition("@")[0]
        if group in groups and not _names_files(value):
            choices = ", ".join(config_files.options(group))
            shown = word if len(word) <= MAX_SHOWN else f"{word[:MAX_SHOWN]}..."
            none = f", or {key}=[] for none" if value.lower() == "null" else ""
            raise UsageError(
                f"{key} takes the name of a file, got {shown}; one of: {choices}{none}."
            )
        if word.startswith("~"):
            continue

        section, _, name = key.partition(".")
        if section in RENAMED:
            rest = word.lstrip("+").removeprefix(section)
            plus = "+" if name else ""
            new = RENAMED[section]
            raise UsageError(f"{section} is now called {new}; write {plus}{new}{rest}.")

        if section == "trainer" and name in REFUSED_OF_TRAINER:
            raise UsageError(f"{key} cannot be set: {REFUSED_OF_TRAINER[name]}.")

        is_new = word.startswith("+") and not set("./@") & set(key)
        is_read = key in known or any(f"${{{key}}}" in other for other in words)
        if is_new and not is_read and not config_files.is_key_of_user(key):
            raise UsageError(f"nothing reads the new key {key!r}, got {word}; leave it out.")


def _refuse_two_tasks(words: Sequence[str]) -> None:
    tasks = [word for word in words if re.match(r"\+?task=", word)]
    if len(tasks) > 1:
        raise UsageError(
            f"a run has one task, got {' '.join(tasks)}; leave one out, or write -m "
            f"+task={','.join(word.partition('=')[2] for word in tasks)} for a sweep over them."
        )


def _names_files(value: str) -> bool:
    """Whether a value is a name, a list of names, or something of which Hydra makes names."""
    if "${" in value or "(" in value or value == "[]":
        return True  # an interpolation, a function such as choice(a,b), no file at all
    is_list = value.startswith("[") and value.endswith("]")
    names = value[1:-1] if is_list else value
    return all(_is_name(name.strip()) for name in names.split(","))


def _is_name(text: str) -> bool:
    """Whether Hydra reads a text as a text: neither a number nor a list, and not empty."""
    if text.lower() in ("", "null", "true", "false") or set("[]{}") & set(text):
        return False
    try:
        float(text)
    except ValueError:
        return True
    return False


def _brings_task(words: Sequence[str]) -> bool:
    """Whether an experiment among the words has a task in its defaults."""
    for word in words:
        if word.startswith("+experiment="):
            name = word.partition("=")[2]
            for folder in config_files.folders():
                file = Path(folder) / "experiment" / f"{name}.yaml"
                if file.is_file() and "/task:" in file.read_text("utf-8"):
                    return True
    return False


def _keys_of_commands() -> set[str]:
    keys: set[str] = set()
    for name in config_files.primaries():
        keys.update(re.findall(r"(?m)^(\w+):", config_files.read(name)))
    return keys
