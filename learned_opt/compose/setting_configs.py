"""The settings of an evaluation, as configs: tasks at horizons, and points of a generalisation card."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf, open_dict

from learned_opt.core.errors import UsageError

FACTOR = re.compile(r"x(\d+(?:\.\d+)?)")


class SettingConfig(NamedTuple):
    """One setting.

    Args:
        task: name of the task in tables.
        cfg: the config of the task at this setting.
        axis: axis of the card; empty for the task itself.
        point: point on that axis.
    """

    task: str
    cfg: DictConfig
    axis: str = ""
    point: str = ""


def setting_configs(tasks: dict[str, DictConfig]) -> Iterator[SettingConfig]:
    """Every task at every horizon, then its card.

    Args:
        tasks: name -> config, with ``horizons`` (null for the task's own) and ``card`` (axis -> point -> what differs).

    Raises:
        UsageError: the lists of horizons or the card are malformed.
    """
    for task, cfg in tasks.items():
        horizons = [cfg.horizon] if cfg.horizons is None else cfg.horizons
        if not OmegaConf.is_list(horizons) and not isinstance(horizons, list):
            raise UsageError(
                f"horizons must be a list of inner steps such as [200,400], got {horizons!r}."
            )
        for horizon in horizons:
            yield SettingConfig(task, laid_over(cfg, OmegaConf.create({"horizon": horizon})))
    for task, cfg in tasks.items():
        for axis, points in (cfg.card or {}).items():
            if not OmegaConf.is_dict(points) or not all(map(OmegaConf.is_dict, points.values())):
                raise UsageError(
                    f"card.{axis} must map each point to what differs there, got {points!r}."
                )
            for point, difference in points.items():
                yield SettingConfig(task, laid_over(cfg, difference), str(axis), str(point))


def laid_over(cfg: DictConfig, difference: DictConfig) -> DictConfig:
    """A config with another laid over it.

    What names a class of its own replaces what was there. A factor such as ``x2`` multiplies a number, or every number
    of a list. The rest is merged.

    Raises:
        UsageError: a key is unknown, or there is no number for a factor.
    """
    own = cfg.copy()
    with open_dict(own):
        _lay(own, "", difference)
    return own


def _lay(own: DictConfig, path: str, value: Any) -> None:
    if OmegaConf.is_dict(value) and ("_target_" not in value or not path):
        for key in value:
            _lay(own, f"{path}.{key}".lstrip("."), value[key])
        return
    there = OmegaConf.select(own, path)
    if there is None:
        raise UsageError(f"the card changes {path}, but the task has no such key.")
    if isinstance(value, str) and (factor := FACTOR.fullmatch(value)):
        value = _times(path, there, float(factor[1]))
    OmegaConf.update(own, path, value, merge=False)


def _times(path: str, value: Any, factor: float) -> Any:
    if OmegaConf.is_list(value):
        return [_times(path, each, factor) for each in value]
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UsageError(
            f"the card multiplies {path} by {factor:g}, but it is {value!r}, no number."
        )
    return max(1, round(value * factor)) if isinstance(value, int) else value * factor
