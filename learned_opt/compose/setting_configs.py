"""The settings of an evaluation, as configs: tasks at horizons, and points of a card."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from omegaconf import DictConfig, OmegaConf

from learned_opt.compose.overlay import lay_over
from learned_opt.core.errors import UsageError


class SettingConfig(NamedTuple):
    """One setting of an evaluation.

    Args:
        task: name of the task in tables.
        cfg: the config of the task at this setting.
        axis: axis of the generalisation card; empty for the task itself.
        point: point on that axis.
    """

    task: str
    cfg: DictConfig
    axis: str = ""
    point: str = ""


def setting_configs(tasks: dict[str, DictConfig]) -> Iterator[SettingConfig]:
    """Every task at every horizon, then its generalisation card.

    Args:
        tasks: name -> config, with ``horizons`` (null for the task's own) and ``card`` (axis ->
            point -> what differs).

    Raises:
        UsageError: the lists of horizons or the card are malformed.
    """
    for task, cfg in tasks.items():
        for horizon in _horizons(cfg):
            yield SettingConfig(task, lay_over(cfg, {"horizon": horizon}))

    for task, cfg in tasks.items():
        for axis, points in (cfg.card or {}).items():
            _check_axis(axis, points)
            for point, difference in points.items():
                yield SettingConfig(task, lay_over(cfg, difference), str(axis), str(point))


def _horizons(cfg: DictConfig) -> Any:
    if cfg.horizons is None:
        return [cfg.horizon]
    if not OmegaConf.is_list(cfg.horizons):
        raise UsageError(
            f"horizons must be a list of inner steps such as [200,400], got {cfg.horizons!r}."
        )
    return cfg.horizons


def _check_axis(axis: Any, points: Any) -> None:
    is_mapping = OmegaConf.is_dict(points)
    if not is_mapping or not all(map(OmegaConf.is_dict, points.values())):
        raise UsageError(f"card.{axis} must map each point to what differs there, got {points!r}.")
