"""A run folder belongs to one run: whoever goes on there must have the config that it began with.

Else ``theta.json`` would record a command that did not make its theta.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from learned_opt.core.errors import UsageError
from learned_opt.core.files import write_text
from learned_opt.runtime.run_folder import RunFolder

# What may differ when a run goes on, as it changes no number of the meta-training: a key stands for
# all keys below it. Outer steps may grow, and ``num_tasks: auto`` is as good as a number.
MAY_CHANGE = (
    "benchmark",
    "callbacks",
    "checkpoint",
    "trust",
    "compile",
    "device",
    "job_type",
    "logger",
    "memory_share",
    "name",
    "print_config",
    "trainer.devices",
    "trainer.max_time",
    "trainer.num_nodes",
    "trainer.strategy",
)
FORMER = ("ckpt",)  # keys of former versions that meant nothing more than one of these
MAY_GROW = ("trainer.max_steps", "steps")  # the second is that of learned_opt.meta_train
AUTO = "auto"
SHOWN = 8  # keys in a message
Config = Mapping[str, Any]


def refuse_another(folder: Path, config: Config, key: str = "hydra.run.dir") -> None:
    """Nothing, where the folder holds no training or one of an equal config.

    Args:
        folder: of the run.
        config: as composed, interpolations as the files have them.
        key: what a person sets to choose another folder.

    Raises:
        UsageError: the training of the folder has another config; names the keys that differ.
    """
    file = RunFolder(folder).identity
    try:
        earlier = yaml.safe_load(file.read_text("utf-8"))
    except FileNotFoundError:
        return
    except (yaml.YAMLError, UnicodeDecodeError):
        earlier = None
    if not isinstance(earlier, dict):
        raise UsageError(f"{file} must hold the config of a run as YAML, but is damaged.")

    sentences = differences(earlier, config)
    if sentences:
        shown = ", ".join(sentences[:SHOWN])
        more = f" and {len(sentences) - SHOWN} more" if len(sentences) > SHOWN else ""
        raise UsageError(
            f"{folder} holds a run of another config: {shown}{more}; "
            f"choose another {key}, or go on with the config of that run."
        )


def keep(folder: Path, config: Config) -> None:
    """Write down whose folder this is; called once nothing of the config can be refused any more.

    Args:
        folder: of the run.
        config: as composed, interpolations as the files have them.
    """
    write_text(RunFolder(folder).identity, yaml.safe_dump(dict(config), sort_keys=False))


def differences(earlier: Config, config: Config) -> list[str]:
    """Of each key that must not differ but does: its name, the earlier value and the new one.

    >>> differences({"seed": 0, "trainer": {"max_steps": 4}}, {"seed": 1})
    ['seed (0 there, 1 here)', 'trainer.max_steps (4 there, none here)']
    """
    before = _leaves(earlier)
    after = _leaves(config)

    sentences = []
    for key in dict.fromkeys([*before, *after]):
        if key in before and key in after:
            is_fine = _may_become(key, before[key], after[key])
        else:
            is_fine = _is_below(key, (*MAY_CHANGE, *FORMER))
        if not is_fine:
            there = before.get(key, "none")
            here = after.get(key, "none")
            sentences.append(f"{key} ({there} there, {here} here)")

    return sentences


def _may_become(key: str, before: Any, after: Any) -> bool:
    if before == after or _is_below(key, MAY_CHANGE):
        return True
    if key in MAY_GROW:
        is_number = isinstance(before, int) and isinstance(after, int)
        return is_number and after >= before
    # the checkpoint knows the number that auto stood for
    return key.endswith("estimator.num_tasks") and AUTO in (before, after)


def _is_below(key: str, keys: tuple[str, ...]) -> bool:
    return any(key == other or key.startswith(f"{other}.") for other in keys)


def _leaves(config: Any, prefix: str = "") -> dict[str, Any]:
    """Full key -> value; an empty node is a value, a list is one too."""
    if not isinstance(config, Mapping) or not config:
        return {prefix: config}
    leaves = {}
    for name, value in config.items():
        leaves |= _leaves(value, f"{prefix}.{name}" if prefix else str(name))
    return leaves
