"""One config per task: a run on a mix is several runs that share everything but their tasks."""

from omegaconf import DictConfig, OmegaConf, open_dict

from learned_opt.core.errors import UsageError


def task_configs(
    cfg: DictConfig, overrides: list[str], groups: list[str]
) -> dict[str | None, DictConfig]:
    """The config of every task of a run, each as a run of its own would have it.

    An entry of ``mix`` lies over the rest of the config, and what the command line says of all tasks over the entry.

    Args:
        cfg: the composed config; the task under ``task``, or several under ``mix``, each with what its task file holds.
        overrides: the words of the command line, such as ``horizon=100``.
        groups: names of the config groups; a choice such as ``estimator=es`` is no value, files lie over it.

    Returns:
        dict[str | None, DictConfig]: entry -> config; None and the composed config for a single task.

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
    given = {key: OmegaConf.select(cfg, key) for key in _keys(overrides) if key not in groups}
    return {name: _over(cfg, name, given) for name in cfg.mix}


def _keys(overrides: list[str]) -> list[str]:
    """Keys that are given a value for all tasks, from words such as ``a.b=1`` and ``+a=1``; ``~a`` gives none."""
    keys = [word.lstrip("+").split("=")[0] for word in overrides if not word.startswith("~")]
    return [
        key
        for key in keys
        if key.split(".")[0] not in ("mix", "hydra") and "@" not in key and "/" not in key
    ]


def _over(cfg: DictConfig, name: str, given: dict[str, object]) -> DictConfig:
    entry = cfg.mix[name]
    if "task" not in entry:
        raise UsageError(
            f"mix.{name} has no task; add +task@mix.{name}=NAME, or leave it out with ~mix.{name}."
        )
    own = cfg.copy()
    with open_dict(own):
        del own.mix
        own.merge_with(entry)
        for key, value in given.items():
            OmegaConf.update(own, key, value)
    return own
