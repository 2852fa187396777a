"""Where the configs lie and what their groups offer; imports nothing heavy."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # learned_opt


def config_dir() -> str:
    """The folder of configs: beside the package in a checkout, inside it in a wheel."""
    for folder in (PACKAGE.parent / "configs", PACKAGE / "configs"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no configs folder beside or inside {PACKAGE}.")


def read(name: str) -> str:
    """The text of a config file, such as ``evaluate`` or ``task/mlp``."""
    return (Path(config_dir()) / f"{name}.yaml").read_text()


def options(group: str) -> list[str]:
    """Names that a config group offers."""
    return sorted(path.stem for path in (Path(config_dir()) / group).glob("*.yaml"))


def groups() -> list[str]:
    """Names of the config groups, nested ones as ``hydra/launcher``."""
    root = Path(config_dir())
    folders = {path.parent for path in root.rglob("*.yaml")} - {root}
    return sorted(folder.relative_to(root).as_posix() for folder in folders)


def primaries() -> list[str]:
    """Names of the configs that a command starts from."""
    return options(".")
