"""``multirun.yaml``: what Hydra writes of a sweep when it is launched."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from learned_opt.core.errors import UsageError


@dataclass(frozen=True)
class SweepPlan:
    """The command that launched a sweep.

    Args:
        overrides: its words of our own config.
        hydra_overrides: its words of Hydra's.
        sweeper: path of the sweeper's class.
        params: of the sweeper, key -> values.
        config_name: the verb's config.
    """

    overrides: list[str]
    hydra_overrides: list[str]
    sweeper: str
    params: dict[str, Any]
    config_name: str


def read(path: Path) -> SweepPlan:
    """Read a plan as plain data: what looks like an interpolation is text of the command.

    Args:
        path: the file.

    Raises:
        UsageError: it is damaged, or it is of something else.
    """
    try:
        content = yaml.safe_load(path.read_text("utf-8"))
    except (yaml.YAMLError, ValueError, OSError, RecursionError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{path} is damaged: {reason}.") from error

    plan = SweepPlan(
        _value(content, "hydra.overrides.task"),
        _value(content, "hydra.overrides.hydra"),
        _value(content, "hydra.sweeper._target_"),
        _value(content, "hydra.sweeper.params") or {},
        _value(content, "hydra.job.config_name"),
    )
    if fault := _fault(plan):
        raise UsageError(f"{path} is not the plan of a sweep: {fault}.")
    return plan


def _value(content: Any, key: str) -> Any:
    """What stands at a key with dots; None where there is nothing."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _fault(plan: SweepPlan) -> str:
    """What is wrong with a plan; empty where nothing is."""
    lists = {"task": plan.overrides, "hydra": plan.hydra_overrides}
    for key, words in lists.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return f"hydra.overrides.{key} must be a list of texts"

    texts = {"sweeper._target_": plan.sweeper, "job.config_name": plan.config_name}
    for key, text in texts.items():
        if not isinstance(text, str):
            return f"hydra.{key} must be a text"

    return "" if isinstance(plan.params, dict) else "hydra.sweeper.params must be a mapping"
