"""The values of a config as files and loggers get them: what comes from the environment stays out.

A secret is handed to a run as ``${oc.env:NAME}``; whoever reads what the run leaves sees that name.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from omegaconf.resolvers import oc

RESOLVER = "oc.env"


def recorded_values(cfg: DictConfig) -> dict[str, Any]:
    """Plain values, resolved; but a text with a variable of the environment in it names that.

    A number that was made from such a variable is no secret, and stays a number.

    Args:
        cfg: a node of a config.

    >>> import os
    >>> os.environ["TOKEN"] = "secret"
    >>> recorded_values(OmegaConf.create({"a": 1, "b": "${a}", "c": "key ${oc.env:TOKEN}"}))
    {'a': 1, 'b': 1, 'c': 'key ${oc.env:TOKEN}'}
    """
    resolved = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(resolved, dict)

    with _environment_by_name():
        named = _resolved_or_written(cfg)
    return {str(key): _without_secrets(value, named[key]) for key, value in resolved.items()}


def readable_values(cfg: DictConfig) -> dict[str, Any]:
    """Plain values to show: what is resolved only in a task of a mix is as the files have it.

    Args:
        cfg: a node of a config.

    >>> cfg = OmegaConf.create({"a": 1, "b": "${a}", "c": "${oc.env:TOKEN}", "d": "${e}"})
    >>> readable_values(cfg)
    {'a': 1, 'b': 1, 'c': '${oc.env:TOKEN}', 'd': '${e}'}
    """
    with _environment_by_name():
        return _resolved_or_written(cfg)


def _without_secrets(resolved: Any, named: Any) -> Any:
    """A resolved value, with the texts of the same value in which variables have names."""
    if isinstance(resolved, str):
        return named
    if isinstance(resolved, dict) and isinstance(named, dict):
        return {key: _without_secrets(value, named[key]) for key, value in resolved.items()}
    if isinstance(resolved, list) and isinstance(named, list):
        return [_without_secrets(*pair) for pair in zip(resolved, named, strict=True)]
    # a list or a mapping that was made of the text of a variable
    return named if isinstance(resolved, dict | list) else resolved


def _resolved_or_written(cfg: Any) -> Any:
    """Resolved values; as written where a resolver of the user's cannot take a name for a value."""
    written = OmegaConf.to_container(cfg, resolve=False)
    try:
        return OmegaConf.to_container(cfg, resolve=True)
    except (OmegaConfBaseException, ValueError, TypeError):
        if not isinstance(written, dict):
            return written

    values = {}
    for key in cfg:
        try:
            value = cfg[key]
        except (OmegaConfBaseException, ValueError, TypeError):
            value = written[key]
        values[key] = _resolved_or_written(value) if OmegaConf.is_config(value) else value
    return values


@contextmanager
def _environment_by_name() -> Iterator[None]:
    """Have references to the environment stand for themselves."""

    def by_name(*words: Any) -> str:
        return f"${{{RESOLVER}:{','.join(map(str, words))}}}"

    OmegaConf.register_new_resolver(RESOLVER, by_name, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver(RESOLVER, oc.env, replace=True)
