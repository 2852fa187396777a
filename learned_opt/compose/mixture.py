"""One config per task: a run on a mix is several runs that share everything but their tasks."""

from collections.abc import Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from learned_opt.compose.overlay import lay_over, nested, writable_copy
from learned_opt.core.errors import UsageError


def task_configs(
    cfg: DictConfig, overrides: Sequence[str], groups: Sequence[str]
) -> dict[str | None, DictConfig]:
    """The config of every task of a run, each as a run of its own would have it.

    An entry of ``mix`` lies over the rest of the config, and what the command line says of all
    tasks over the entry.

    Args:
        cfg: the composed config; the task under ``task``, or several under ``mix``, each with what
            its task file holds.
        overrides: the words of the command line, such as ``horizon=100``.
        groups: names of the config groups; a choice such as ``estimator=es`` is no value, files
            lie over it.

    Returns:
        dict[str | None, DictConfig]: entry -> config; None and the composed config for a single
        task.

    Raises:
        UsageError: there is no task, one beside a mix, or an entry without a task.
    """
    if "mix" not in cfg:
        return {None: cfg}
    if "task" in cfg:
        raise UsageError(
            "a mix holds all tasks of a run under mix, but there is one beside it, under task."
        )
    if not cfg.mix:
        raise UsageError("mix must hold at least one task, got none.")

    values = {}
    for key in _keys(overrides):
        if key not in groups:
            # as Hydra has parsed it: the word itself is only text
            values[key] = OmegaConf.select(cfg, key)

    return {name: _task_config(cfg, name, values) for name in cfg.mix}


def _keys(overrides: Sequence[str]) -> list[str]:
    """Keys that get a value for all tasks, from words such as ``a.b=1`` and ``+a=1``."""
    keys = []
    for word in overrides:
        key = word.lstrip("+").split("=")[0]
        # these choose a file or remove a key, and give no value
        is_group = "@" in key or "/" in key
        is_deletion = word.startswith("~")
        if not is_group and not is_deletion and key.split(".")[0] not in ("mix", "hydra"):
            keys.append(key)

    return keys


def _task_config(cfg: DictConfig, name: str, values: dict[str, Any]) -> DictConfig:
    entry = cfg.mix[name]
    if "task" not in entry:
        raise UsageError(
            f"mix.{name} has no task; add +task@mix.{name}=NAME, or leave it out with ~mix.{name}."
        )

    shared = writable_copy(cfg)
    with open_dict(shared):
        # a run of its own has no mix
        del shared.mix

    task_config = lay_over(shared, entry, new_keys=True, source=f"mix.{name}")
    for key, value in values.items():
        changes = OmegaConf.create(nested(key, value))
        task_config = lay_over(task_config, changes, new_keys=True, source="the command line")

    return task_config
