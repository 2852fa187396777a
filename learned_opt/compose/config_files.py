"""Where the configs lie and what their groups offer; imports nothing heavy."""

from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]  # learned_opt


def config_dir() -> str:
    """The folder of configs: beside the package in a checkout, inside it in a wheel."""
    for folder in (PACKAGE.parent / "configs", PACKAGE / "configs"):
        if (folder / "config.yaml").is_file():
            return str(folder)
    raise FileNotFoundError(f"no configs folder beside or inside {PACKAGE}.")


def options(group: str) -> list[str]:
    """Names that a config group offers."""
    return sorted(path.stem for path in (Path(config_dir()) / group).glob("*.yaml"))
