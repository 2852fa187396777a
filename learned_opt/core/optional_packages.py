"""Packages that only some runs need."""

from importlib.util import find_spec


def require(modules: tuple[str, ...], key: str, extra: str) -> None:
    """Nothing, where every one of some modules is installed.

    Args:
        modules: names to import.
        key: of the config, which asks for them.
        extra: of this project, which brings them.

    Raises:
        ValueError: one is not installed; says how to install it.

    >>> require(("json",), "logger=tensorboard", "tensorboard")
    """
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        verb = "is" if len(missing) == 1 else "are"
        raise ValueError(
            f"{key} needs {', '.join(missing)}, which {verb} not installed; "
            f"pip install -e '.[{extra}]'."
        )
