"""What Hydra writes of a command: ``multirun.yaml`` of a sweep, ``.hydra/hydra.yaml`` of a run."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from learned_opt.core.errors import UsageError


@dataclass(frozen=True)
class SweepPlan:
    """The command that launched a sweep, or a run.

    Args:
        overrides: its words of our own config.
        hydra_overrides: its words of Hydra's.
        sweeper: path of the sweeper's class.
        params: of the sweeper, key -> values.
        config_name: the verb's config.
        config_dirs: folders of configs that it added by ``--config-dir``.
        num_trials: of a study; None where the words say which jobs there are.
    """

    overrides: list[str]
    hydra_overrides: list[str]
    sweeper: str
    params: dict[str, Any]
    config_name: str
    config_dirs: list[str]
    num_trials: int | None


def command_of(config_name: str) -> str:
    """The command of a run up to its overrides: ``python -m learned_opt VERB``.

    Args:
        config_name: the verb's config, as Hydra's own node knows it.

    >>> command_of("config")
    'python -m learned_opt'
    """
    verb = "" if config_name == "config" else config_name.replace("_", " ")
    return f"python -m learned_opt {verb}".rstrip()


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
        _config_dirs(_value(content, "hydra.runtime.config_sources")),
        _value(content, "hydra.sweeper.n_trials"),
    )
    if fault := _fault(plan):
        raise UsageError(f"{path} is not the plan of a sweep: {fault}.")
    return plan


def _value(content: Any, key: str) -> Any:
    """What stands at a key with dots; None where there is nothing."""
    for part in key.split("."):
        content = content.get(part) if isinstance(content, dict) else None
    return content


def _config_dirs(sources: Any) -> list[Any]:
    """Paths of those sources of configs that the command line has added."""
    folders = []
    for source in sources if isinstance(sources, list) else []:
        if isinstance(source, dict) and source.get("provider") == "command-line":
            folders.append(source.get("path"))
    return folders


def _fault(plan: SweepPlan) -> str:
    """What is wrong with a plan; empty where nothing is."""
    lists = {
        "overrides.task": plan.overrides,
        "overrides.hydra": plan.hydra_overrides,
        "runtime.config_sources": plan.config_dirs,
    }
    for key, words in lists.items():
        if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
            return f"hydra.{key} must be a list of texts"

    texts = {"sweeper._target_": plan.sweeper, "job.config_name": plan.config_name}
    for key, text in texts.items():
        if not isinstance(text, str):
            return f"hydra.{key} must be a text"

    if plan.num_trials is not None and not isinstance(plan.num_trials, int):
        return "hydra.sweeper.n_trials must be a number"
    return "" if isinstance(plan.params, dict) else "hydra.sweeper.params must be a mapping"
