"""One config laid over another: what an entry of a mix or a point of a card changes.

* A node that names a class (``_target_``) replaces what was there.
* A factor such as ``x2`` multiplies the number that was there, or every number of a list.
* A summand such as ``+2`` is added to the number that was there; a list gets its last entry so many
  times more, as networks get layers.
* The rest is merged, key by key.
"""

import re
from collections.abc import Mapping
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from learned_opt.core.errors import UsageError

FACTOR = re.compile(r"x(\d+(?:\.\d+)?)")
SUMMAND = re.compile(r"\+(\d+)")
MISSING = "???"


def lay_over(
    cfg: DictConfig,
    changes: DictConfig | Mapping[str, Any],
    *,
    new_keys: bool = False,
    source: str = "the card",
) -> DictConfig:
    """A new, read-only config with changes laid over it.

    Interpolations among the changes, such as ``${network}``, are resolved in the result.

    Args:
        cfg: the config below, which stays as it is.
        changes: what differs, as nested as the config is.
        new_keys: whether the changes may hold keys that the config does not have.
        source: where the changes come from, for messages.

    Raises:
        UsageError: a key is unknown, or there is no number for a factor.

    >>> task = OmegaConf.create({"network": {"sizes": [16, 8]}, "task": {"network": "${network}"}})
    >>> lay_over(task, {"network": {"sizes": "x2"}}).task.network.sizes
    [32, 16]
    """
    if isinstance(changes, DictConfig):
        changes = _as_written(changes)

    result = writable_copy(cfg)
    with open_dict(result):
        _Overlay(new_keys, source).merge(result, changes, "")

    OmegaConf.set_readonly(result, True)
    return result


def nested(key: str, value: Any) -> dict[str, Any]:
    """The changes that give one dotted key a value.

    >>> nested("estimator.sigma", 0.1)
    {'estimator': {'sigma': 0.1}}
    """
    changes = value
    for part in reversed(key.split(".")):
        changes = {part: changes}
    return changes


def writable_copy(cfg: DictConfig) -> DictConfig:
    """A copy of a config that may be written into while it is being made."""
    copy = cfg.copy()
    OmegaConf.set_readonly(copy, False)
    return copy


def _as_written(cfg: DictConfig) -> dict[str, Any]:
    """Plain values, with interpolations as the file has them."""
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    return {str(key): value for key, value in values.items()}


class _Overlay:
    """Merges changes into a config that may be written into."""

    def __init__(self, new_keys: bool, source: str) -> None:
        self.new_keys = new_keys
        self.source = source

    def merge(self, node: DictConfig, changes: Mapping[str, Any], path: str) -> None:
        for key, value in changes.items():
            key_path = f"{path}.{key}".lstrip(".")
            if key not in node and not self.new_keys:
                raise UsageError(f"{self.source} changes {key_path}, but the task has no such key.")

            if isinstance(value, Mapping) and "_target_" not in value:
                self._make_writable(node, key)
                self.merge(node[key], value, key_path)
            elif value == MISSING and key in node:
                pass  # a value that is still to be given hides none
            else:
                node[key] = self._value(node, key, value, key_path)

    def _make_writable(self, node: DictConfig, key: str) -> None:
        """Have a node of its own at a key, in place of nothing, of a value or of ``${another}``."""
        is_absent = key not in node or OmegaConf.is_missing(node, key)
        if is_absent or not OmegaConf.is_dict(node[key]):
            node[key] = {}
        elif OmegaConf.is_interpolation(node, key):
            node[key] = node[key]  # reading follows the interpolation, writing copies

    def _value(self, node: DictConfig, key: str, value: Any, key_path: str) -> Any:
        if not isinstance(value, str) or key not in node:
            return value
        if factor := FACTOR.fullmatch(value):
            return self._times(node[key], float(factor[1]), key_path)
        if summand := SUMMAND.fullmatch(value):
            return self._plus(node[key], int(summand[1]), key_path)
        return value

    def _plus(self, value: Any, summand: int, key_path: str) -> Any:
        if OmegaConf.is_list(value) and len(value):
            return [*value, *[value[-1]] * summand]
        if isinstance(value, bool) or not isinstance(value, int):
            raise UsageError(
                f"{self.source} adds {summand} to {key_path}, but it is {value!r}, neither a "
                "whole number nor a list with an entry to repeat."
            )
        return value + summand

    def _times(self, value: Any, factor: float, key_path: str) -> Any:
        if OmegaConf.is_list(value):
            return [self._times(each, factor, key_path) for each in value]
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise UsageError(
                f"{self.source} multiplies {key_path} by {factor:g}, but it is {value!r}, "
                "no number."
            )

        product = value * factor
        return max(1, round(product)) if isinstance(value, int) else product
