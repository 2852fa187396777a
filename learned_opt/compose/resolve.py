"""The config of a run as it is from then on: lists come from their folders, nothing is written.

``final`` is called once, right after Hydra has composed; what differs later is a new config.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf, open_dict

from learned_opt.compose import hydra_job
from learned_opt.compose.debug_words import debug_words
from learned_opt.compose.mixture import task_configs
from learned_opt.compose.name_checks import check_names
from learned_opt.compose.overlay import MISSING, lay_over, writable_copy
from learned_opt.compose.value_checks import check_values
from learned_opt.core import files
from learned_opt.runtime.run_folder import RunFolder

ALL = "all"  # an entry of this name stands for every file of a config group that belongs there
AUTO = "auto"  # value of estimator.num_tasks that stands for as many as fit into memory
HAND_DESIGNED = "learned_opt.optimizers.hand."  # the package of the optimizers that are tuned
Nodes = dict[str, Any]


def final(cfg: DictConfig) -> DictConfig:
    """The config that Hydra has composed, with every list complete, and read-only.

    ``benchmark.baselines.all`` becomes all hand-designed optimizers of ``meta_optimizer``, and
    ``cases.all`` of the estimator lab all files of ``estimator``. What stands beside ``all`` is
    laid over the entry of its name; null leaves that one out.

    Args:
        cfg: the composed config; a final one is returned as it is.

    Raises:
        UsageError: a value has the wrong type or is no finite number, or a name cannot be shown.
    """
    result = writable_copy(cfg)
    with open_dict(result):
        _expand(result, "benchmark.baselines", "meta_optimizer", _baselines)
        _expand(result, "cases", "estimator", _lab_cases)

    check_values(result)
    check_names(result)
    OmegaConf.set_readonly(result, True)
    return result


def tasks_of(cfg: DictConfig) -> dict[str | None, DictConfig]:
    """The config of every task of a run, by its entry in the mix; None for a single task.

    Raises:
        UsageError: a mix is malformed, see ``task_configs``.
    """
    if "mix" not in cfg:  # a replay has no Hydra
        return task_configs(cfg, [], [])
    words = [*debug_words(), *hydra_job.overrides()]
    return task_configs(cfg, words, hydra_job.groups())


def with_meta_optimizer(cfg: DictConfig, node: Mapping[str, Any], name: str) -> DictConfig:
    """A new config with another meta-optimizer.

    Args:
        cfg: the config below.
        node: config node of the meta-optimizer, with its ``_target_``.
        name: what tables call it.
    """
    return lay_over(cfg, {"meta_optimizer": node, "optimizer_name": name}, new_keys=True)


def with_num_tasks(cfg: DictConfig, number: int) -> DictConfig:
    """A new config with a number wherever it says ``estimator.num_tasks: auto``."""
    changes: dict[str, Any] = {}
    if says_auto(cfg):
        changes["estimator"] = {"num_tasks": number}
    for name, entry in (cfg.get("mix") or {}).items():
        if says_auto(entry):
            changes.setdefault("mix", {})[name] = {"estimator": {"num_tasks": number}}
    return lay_over(cfg, changes)


def says_auto(cfg: DictConfig) -> bool:
    """Whether the number of tasks of a config is still to be worked out."""
    return OmegaConf.select(cfg, "estimator.num_tasks") == AUTO


def plain_values(cfg: DictConfig) -> Nodes:
    """Plain values by name, with interpolations as the files have them."""
    values = OmegaConf.to_container(cfg, resolve=False)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def task_values(cfg: DictConfig) -> Nodes:
    """The node of the task with all that it refers to, as plain values to instantiate.

    Of a node that refers to others, ``instantiate`` would write into those, which are read-only.
    """
    values = OmegaConf.to_container(cfg.task, resolve=True)
    assert isinstance(values, dict)
    return {str(name): value for name, value in values.items()}


def save(cfg: DictConfig, folder: Path) -> None:
    """Write the config of a run into its folder, in place of what Hydra has composed."""
    files.write_text(RunFolder(folder).config, OmegaConf.to_yaml(cfg))


def _expand(cfg: DictConfig, path: str, group: str, choose: Callable[[Nodes], Nodes]) -> None:
    """Put the files of a group in place of the entry ``all``, after the entries beside it."""
    entries = OmegaConf.select(cfg, path)
    if not OmegaConf.is_dict(entries) or ALL not in entries:
        return

    beside = plain_values(entries)
    wants_all = beside.pop(ALL)
    nodes = choose(plain_values(hydra_job.group_nodes(group))) if wants_all else {}

    expanded = {}
    for name in [*beside, *(name for name in nodes if name not in beside)]:
        entry = beside.get(name, {})
        if entry is not None:
            # an entry that names a class is whole, and takes nothing from the file of its name
            below = {} if "_target_" in entry else nodes.get(name, {})
            expanded[name] = OmegaConf.merge(below, entry)

    OmegaConf.update(cfg, path, expanded, merge=False)


def _baselines(nodes: Nodes) -> Nodes:
    """Hand-designed optimizers with a learning rate to tune; none that lacks a value."""
    baselines = {}
    for name, node in nodes.items():
        is_hand_designed = str(node.get("_target_", "")).startswith(HAND_DESIGNED)
        if is_hand_designed and "lr" in node and _is_complete(node):
            baselines[name] = node
    return baselines


def _lab_cases(nodes: Nodes) -> Nodes:
    """Every estimator truncated at ``unroll_length``; one that runs the horizon also as it is.

    The reference is such a one, and is not measured twice.
    """
    cases = {}
    reference = hydra_job.choice("estimator@reference")
    for name, node in nodes.items():
        length = node.get("unroll_length")
        is_whole = length in (None, "${horizon}")
        if is_whole and name != reference:
            cases[name] = node

        if length is not None:
            case_name = f"{name}_truncated" if is_whole else name
            cases[case_name] = node | {"unroll_length": "${unroll_length}"}

    return cases


def _is_complete(node: Any) -> bool:
    if isinstance(node, Mapping):
        return all(map(_is_complete, node.values()))
    return node != MISSING
