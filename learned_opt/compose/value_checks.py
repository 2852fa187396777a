"""Every value of a config, checked against the annotation of the argument that it is for.

A wrong type or a number that is not finite is refused at once, under the key that a person has
written, before anything is built from it.
"""

import inspect
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from math import isfinite
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import torch
import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from learned_opt.compose import config_files, produced_types
from learned_opt.core.errors import UsageError

AUTO_KEY = "num_tasks"  # an int of the estimators that may say ``auto``, see ``sizing``
LARGEST = 2**63 - 1  # whole number that torch takes, as a seed or as anything else
# what a run's own keys must lie between; the ranges of others are those of their constructors
RANGES = {"seed": (0, LARGEST), "horizon": (1, 10**9)}
RULES = {int: "a whole number", float: "a finite number", bool: "true or false", str: "text"}


def check_values(cfg: DictConfig) -> None:
    """Refuse values that no constructor of a config could mean.

    Args:
        cfg: the composed config.

    Raises:
        UsageError: names the key, the rule and the value.
    """
    _check_run_keys(cfg)
    for path, node in _nodes(cfg, ""):
        for name, hint in _annotations(node).items():
            if name in node:
                _check_argument(node, path, name, hint)


def _check_run_keys(cfg: DictConfig) -> None:
    """Keys that belong to no constructor have the type of their default in config.yaml."""
    defaults = _parsed(config_files.read("config"))
    for name, default in defaults.items():
        hint = type(default)
        if hint in RULES and name in cfg:
            _check_argument(cfg, "", name, hint)

    for name, (low, high) in RANGES.items():
        value = cfg.get(name)
        if isinstance(value, int) and not low <= value <= high:
            raise UsageError(f"{name} must be from {low} to {high}, got {value}.")


@cache
def _parsed(text: str) -> Mapping[str, Any]:
    return yaml.safe_load(text)


def _nodes(node: Any, path: str) -> Iterator[tuple[str, DictConfig]]:
    """Every node with a class, and its path; what an interpolation points at is met elsewhere."""
    if isinstance(node, DictConfig):
        if "_target_" in node:
            yield path, node
        keys: Sequence[Any] = list(node)
    elif isinstance(node, ListConfig):
        keys = range(len(node))
    else:
        return

    for key in keys:
        if OmegaConf.is_interpolation(node, key) or OmegaConf.is_missing(node, key):
            continue
        child = node[key]
        if OmegaConf.is_config(child):
            yield from _nodes(child, f"{path}.{key}".lstrip("."))


def _annotations(node: DictConfig) -> Mapping[str, Any]:
    """What the constructor of a node says of its arguments; empty where that cannot be read."""
    try:
        target: Callable[..., Any] = get_object(node["_target_"])
    except Exception:  # Hydra will say so when it builds the node
        return {}

    function = target.__init__ if inspect.isclass(target) else target
    try:
        hints = get_type_hints(function)
    except (NameError, TypeError, AttributeError):  # of a library that imports its types lazily
        return {}
    return {name: hint for name, hint in hints.items() if name != "return"}


def _check_argument(node: DictConfig, path: str, name: str, hint: Any) -> None:
    try:
        value = node[name]
        rules = _broken_rules(value, hint)
    except OmegaConfBaseException:  # missing, or resolved only where a mix lays it over a task
        return
    if name == AUTO_KEY and value == "auto":
        return
    if not rules and produced_types.fits(value, hint):
        return

    key = _written_key(node, path, name)
    if sentence := produced_types.misfit(value, hint, key):
        raise UsageError(f"{f'{path}.{name}'.lstrip('.')} {sentence}")
    if rules:
        raise UsageError(f"{key} must be {' or '.join(rules)}, got {_shown(value)}.{_hint(value)}")


def _broken_rules(value: Any, hint: Any) -> list[str]:
    """What a value must be instead, in words; empty where it is allowed or nothing is known."""
    rules = []
    for choice in _choices(hint):
        rule = _broken_rule(value, choice)
        if rule is None:
            return []
        if rule:
            rules.append(rule)
    return list(dict.fromkeys(rules))


def _broken_rule(value: Any, hint: Any) -> str | None:
    """The rule that a value breaks, None where it breaks none."""
    if hint in (Any, object):
        return None
    if hint is type(None):
        return None if value is None else "null"
    if hint is torch.Tensor:  # no config holds one
        return ""
    if get_origin(hint) is Literal:
        allowed = get_args(hint)
        return None if value in allowed else f"one of {', '.join(map(str, allowed))}"
    if hint in RULES:
        return None if _is_of(value, hint) else RULES[hint]
    if get_origin(hint) in (list, tuple, Sequence):
        return _broken_rule_of_list(value, hint)
    if get_origin(hint) in (dict, Mapping):
        return _broken_rule_of_mapping(value, hint)
    if get_origin(hint) is Callable:
        is_node = isinstance(value, DictConfig) and "_target_" in value
        return None if is_node else "a node with a _target_"
    if value is None and inspect.isclass(hint):
        return f"a node with a _target_ ({hint.__name__})"
    return None


def _broken_rule_of_list(value: Any, hint: Any) -> str | None:
    if not isinstance(value, ListConfig):
        return "a list"

    kind = get_args(hint)[0]
    for index in range(len(value)):
        rules = [] if OmegaConf.is_missing(value, index) else _broken_rules(value[index], kind)
        if rules:
            return f"a list, each {' or '.join(rules)}"
    return None


def _broken_rule_of_mapping(value: Any, hint: Any) -> str | None:
    if not isinstance(value, DictConfig):
        return "a mapping"

    kind = get_args(hint)[1]
    for name in value:
        rules = [] if OmegaConf.is_missing(value, name) else _broken_rules(value[name], kind)
        if rules:
            return f"a mapping, each value {' or '.join(rules)}"
    return None


def _choices(hint: Any) -> tuple[Any, ...]:
    if get_origin(hint) in (Union, types.UnionType):
        return get_args(hint)
    return (hint,)


def _is_of(value: Any, kind: type) -> bool:
    if kind is float:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return is_number and isfinite(value)
    if kind is int:
        is_whole = isinstance(value, int) and not isinstance(value, bool)
        return is_whole and abs(value) <= LARGEST
    return isinstance(value, kind)


def _written_key(node: DictConfig, path: str, name: str) -> str:
    """The key that a person has written: an interpolation stands for that which it names."""
    key = f"{path}.{name}".lstrip(".")
    root: Any = node._get_root()
    raw = OmegaConf.to_container(node, resolve=False)
    text = raw[name] if isinstance(raw, dict) else None

    while isinstance(text, str) and text.startswith("${") and text.endswith("}"):
        target = text[2:-1]
        if not target.replace(".", "").replace("_", "").isalnum() or target.startswith("."):
            break
        key = target
        parent, _, last = target.rpartition(".")
        holder = OmegaConf.select(root, parent) if parent else root
        text = OmegaConf.to_container(holder, resolve=False)[last]  # type: ignore[index]
    return key


def _shown(value: Any) -> str:
    if value is None:
        return "null"
    return repr(value) if isinstance(value, str) else str(value)


def _hint(value: Any) -> str:
    """How to write what was meant, where a number of whole value has the type of a fraction."""
    if isinstance(value, int) and abs(value) > LARGEST:
        return f" The largest is {LARGEST}."
    is_whole = isinstance(value, float) and isfinite(value) and value == int(value)
    return f" Write {int(value)}." if is_whole else ""
