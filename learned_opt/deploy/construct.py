"""A meta-optimizer from the config node in its ``theta.json``, which may come from anywhere: nothing else is imported.

A node is what Hydra would instantiate, in a safe subset: ``_target_`` names a class of our own optimizers or layers, or
a schedule, ``_partial_`` leaves it to be called later, all other keys are arguments: numbers, text, lists and nodes.
"""

import importlib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import torch
from torch import nn

from learned_opt.optimizers.base import MetaOptimizer
from learned_opt.symmetry.spec import PermutationSpec

PACKAGES = ("learned_opt.optimizers.", "learned_opt.unf.")
SCHEDULES = (
    "learned_opt.optimizers.schedule"  # whose members are functions of the step, not modules
)


def build(node: Any, spec: PermutationSpec) -> MetaOptimizer:
    """The optimizer on a spec, its theta still to be loaded; the caller's random numbers stay as they are.

    Raises:
        ValueError: the node names something else than a meta-optimizer of ours, or arguments that it does not take.
    """
    target = node.get("_target_") if isinstance(node, Mapping) else None
    try:
        with torch.random.fork_rng(devices=[]):
            constructor = _value(node, "meta_optimizer")
            if not isinstance(constructor, partial) or not _makes_optimizers(constructor.func):
                raise ValueError(
                    f"meta_optimizer must be the config of a meta-optimizer, got {target!r}."
                )
            return constructor(spec)
    except (TypeError, RuntimeError) as error:
        raise ValueError(
            f"meta_optimizer {target} does not take these arguments: {error}."
        ) from error


def _makes_optimizers(constructor: Any) -> bool:
    return isinstance(constructor, type) and issubclass(constructor, MetaOptimizer)


def _value(node: Any, where: str) -> Any:
    if isinstance(node, list):
        return [_value(part, f"{where}[{i}]") for i, part in enumerate(node)]
    if not isinstance(node, Mapping):
        return node
    arguments = {
        key: _value(part, f"{where}.{key}") for key, part in node.items() if not key.startswith("_")
    }
    if unknown := sorted(set(node) - set(arguments) - {"_target_", "_partial_"}):
        raise ValueError(f"{where} has keys that are not supported: {', '.join(unknown)}.")
    if "_target_" not in node:
        return arguments
    constructor = partial(_ours(node["_target_"], where), **arguments)
    return constructor if node.get("_partial_") else constructor()


def _ours(target: Any, where: str) -> Callable[..., Any]:
    """A module class that is defined in one of PACKAGES, or a schedule, by its full name."""
    refusal = f"{where} names {target!r}, which is no class of {' or '.join(p.rstrip('.') for p in PACKAGES)}."
    if (
        not isinstance(target, str)
        or not target.startswith(PACKAGES)
        or not target.replace(".", "").isidentifier()
    ):
        raise ValueError(refusal)
    module_name, _, name = target.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name, None)
    except ModuleNotFoundError as error:
        raise ValueError(refusal) from error
    module_class = isinstance(found, type) and issubclass(found, nn.Module)
    if getattr(found, "__module__", None) != module_name or not (
        module_class or module_name == SCHEDULES
    ):
        raise ValueError(refusal)
    return cast(Callable[..., Any], found)
