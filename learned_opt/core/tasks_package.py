"""The package ``tasks`` beside ``learned_opt``, where a user's folder has a module of that name.

Python looks into the current folder first, and ``tasks.py`` is a usual name for a script.
"""

import sys
from importlib.machinery import PathFinder
from importlib.util import module_from_spec
from pathlib import Path

NAME = "tasks"
PARENT = Path(__file__).resolve().parents[2]  # of learned_opt


def bind() -> None:
    """Make ``import tasks`` give the package beside ``learned_opt``, whatever has its name.

    Raises:
        ImportError: another module of that name is imported already, or there is no package.
    """
    if NAME in sys.modules:
        refuse_another()
        return

    spec = PathFinder.find_spec(NAME, [str(PARENT)])
    if spec is None or spec.loader is None:
        raise ImportError(f"there is no package {NAME} beside learned_opt in {PARENT}.")
    package = module_from_spec(spec)
    sys.modules[NAME] = package
    spec.loader.exec_module(package)


def refuse_another() -> None:
    """Check which module ``import tasks`` gives.

    Raises:
        ImportError: another one than that of ``learned_opt``; names its file.
    """
    loaded = sys.modules.get(NAME)
    spec = PathFinder.find_spec(NAME) if loaded is None else loaded.__spec__
    if spec is None or spec.origin is None:  # not installed, which Python itself says
        return

    if Path(spec.origin).resolve().parent != PARENT / NAME:
        raise ImportError(
            f"the module {NAME} in {spec.origin} hides the package {NAME} of learned_opt; give it "
            "another name, or start Python in another folder."
        )
