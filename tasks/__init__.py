"""Inner problems: networks, and what they are trained on; imports nothing from learned_opt."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for type checkers and editors; at run time the table below imports
    from tasks.base import TaskFamily as TaskFamily
    from tasks.module import ModuleTask as ModuleTask

PUBLIC_NAMES = {  # name -> module that defines it
    "ModuleTask": "tasks.module",
    "TaskFamily": "tasks.base",
}


def __getattr__(name: str) -> Any:
    """Import a public name at its first use: importing the package must not import torch."""
    if name not in PUBLIC_NAMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(PUBLIC_NAMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *PUBLIC_NAMES])
