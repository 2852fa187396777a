"""Nodes that make something else than an argument needs, such as text for a task of images.

Seen from the annotations of the two: neither is built. A wrong kind of data would else be met deep
in a constructor, as an attribute that it does not have.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import yaml
from hydra.utils import get_object
from omegaconf import DictConfig

from learned_opt.compose import config_files


def misfit(node: Any, hint: Any, group: str) -> str | None:
    """What is wrong with a node as the value of an argument; None where it fits, as far as known.

    Args:
        node: the value of a config.
        hint: annotation of the argument.
        group: the config group that the value is from, whose files that fit are named.
    """
    if fits(node, hint):
        return None

    kind = _made_by(node["_target_"])
    assert kind is not None
    names = []
    for name in config_files.options(group):
        made = _made_by(_target_of(group, name))
        if made is not None and issubclass(made, hint):
            names.append(name)
    choices = f"; {group} must be one of: {', '.join(names)}" if names else ""
    return f"must be {hint.__name__}, but {node['_target_']} makes {kind.__name__}{choices}."


def fits(node: Any, hint: Any) -> bool:
    """Whether a node can be the value of an argument, as far as known.

    Args:
        node: the value of a config.
        hint: annotation of the argument.
    """
    is_node = isinstance(node, DictConfig) and "_target_" in node and not node.get("_partial_")
    if not is_node or hint is Any or not inspect.isclass(hint):
        return True
    if getattr(hint, "_is_protocol", False):  # whatever has the methods will do
        return True

    kind = _made_by(node["_target_"])
    return kind is None or _may_be(kind, hint)


def _may_be(kind: type, hint: type) -> bool:
    """Whether a value of the one class can be of the other: an annotation may be of a base."""
    return issubclass(kind, hint) or issubclass(hint, kind)


def _made_by(target: str) -> type | None:
    """The class of what a target makes; None where its annotation does not say."""
    try:
        function: Callable[..., Any] = get_object(target)
        made = function if inspect.isclass(function) else get_type_hints(function).get("return")
    except Exception:  # Hydra will say so when it builds the node
        return None
    return made if inspect.isclass(made) else None


def _target_of(group: str, name: str) -> str:
    """The target in a file of a config group; empty where it has none."""
    for folder in config_files.folders():
        file = Path(folder) / group / f"{name}.yaml"
        if file.is_file():
            content = yaml.safe_load(file.read_text("utf-8"))
            return str((content or {}).get("_target_", "")) if isinstance(content, dict) else ""
    return ""
