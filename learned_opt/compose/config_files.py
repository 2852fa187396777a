"""Where the configs lie and what their groups offer; imports nothing heavy."""

import re
import sys
from pathlib import Path

CONFIG_DIR_FLAGS = ("--config-dir", "-cd")
SEARCH_KEY = "hydra.searchpath"
FILE_OF_SEARCH = re.compile(r"file://([^,\]'\"]+)")
PACKAGE = Path(__file__).resolve().parents[1]  # learned_opt


def config_dir() -> str:
    """The folder of configs: beside the package in a checkout, inside it in a wheel.

    A wheel may lie in a folder of the user, who may have configs beside it.
    """
    for folder in (PACKAGE / "configs", PACKAGE.parent / "configs"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no configs folder inside or beside {PACKAGE}.")


def user_folders() -> list[str]:
    """Folders of configs that the command line adds by ``--config-dir`` or ``hydra.searchpath``.

    Read from the command line, as choices are listed before Hydra has started.
    """
    folders: list[str] = []
    words = sys.argv[1:]
    for index, word in enumerate(words):
        flag, has_value, value = word.partition("=")
        if flag.lstrip("+") == SEARCH_KEY:
            folders += FILE_OF_SEARCH.findall(value)
        if flag not in CONFIG_DIR_FLAGS:
            continue
        if has_value:
            folders.append(value)
        elif index + 1 < len(words):
            folders.append(words[index + 1])
    return folders


def folders() -> list[str]:
    """All folders of configs, those of the user first."""
    return [*user_folders(), config_dir()]


def read(name: str) -> str:
    """The text of a config file, such as ``evaluate`` or ``task/mlp``."""
    return (Path(config_dir()) / f"{name}.yaml").read_text("utf-8")


def read_table_of_groups() -> str:
    """The text that says what each group chooses."""
    return (Path(config_dir()) / "README.md").read_text("utf-8")


def options(group: str) -> list[str]:
    """Names that a config group offers, those of the user's own folder included."""
    names: set[str] = set()
    for folder in folders():
        names.update(path.stem for path in (Path(folder) / group).glob("*.yaml"))
    return sorted(names)


def groups() -> list[str]:
    """Names of the config groups, nested ones as ``hydra/launcher``."""
    names: set[str] = set()
    for root in map(Path, folders()):
        below = {path.parent for path in root.rglob("*.yaml")} - {root}
        names.update(folder.relative_to(root).as_posix() for folder in below)
    return sorted(names)


def is_key_of_user(key: str) -> bool:
    """Whether a config in the user's own folders has a key at its top, or refers to it."""
    pattern = re.compile(rf"(?m)^{re.escape(key)}:|\$\{{{re.escape(key)}[}}.]")
    for folder in map(Path, user_folders()):
        if any(pattern.search(file.read_text()) for file in folder.rglob("*.yaml")):
            return True
    return False


def primaries() -> list[str]:
    """Names of the configs that a command starts from."""
    return sorted(path.stem for path in Path(config_dir()).glob("*.yaml"))
